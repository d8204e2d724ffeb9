"""The recipes of the stages of `onetrunk unify`; each stage is an ordinary run.

| stage | its networks | how its recipe differs from that of the user |
|---|---|---|
| `frozen` | linear heads on the frozen trunk | `train.frozen = true` |
| `specialist-NAME` | one network for one domain | only this domain, `trunk.sharing = "none"` |
| `joint` | one network, trained on labels | |
| `distilled` | one network, with the specialists as teachers | `distill.teachers` |
| `adapters` | the distilled network with adapters for each domain | `trunk.adapters` |
| `continued` | the chosen network, trained for the rest of the time | `init` |

`specialists` has the networks of all specialists in one run. Stages whose trunk is pretrained start
from the frozen trunk with its solved heads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onetrunk.config import Recipe
from onetrunk.config.to_toml import inline
from onetrunk.store.places import relative_to

FROZEN, SPECIALISTS, JOINT = "frozen", "specialists", "joint"
DISTILLED, ADAPTERS, CONTINUED = "distilled", "adapters", "continued"
EVALUATIONS = 10  # in each training, after that of step 0
SMOOTHING = 0.1  # of labels, for networks that learn from labels alone
MAX_EMA = 0.999  # lower while there are few steps (train/ema.py)
DISTILL = {"features": "cka", "logits": True, "temperature": 4.0}
ADAPTED = "parallel"


@dataclass(frozen=True)
class Stages:
    """The recipes of the stages.

    Args:
        base: The recipe of the user, whose keys are kept where they are set.
        folder: The folder of the stages.
        pretrained: Whether training starts from the frozen trunk and its heads.
    """

    base: Recipe
    folder: Path
    pretrained: bool

    def frozen(self, steps: int) -> Recipe:
        """Return the recipe of heads on the frozen trunk; decoders are trained for some steps."""
        return self._recipe(FROZEN, {"train.frozen": True, "train.steps": steps})

    def specialist(self, name: str, rate: float, steps: int) -> Recipe:
        """Return the recipe of the network for one domain."""
        alone = len(self.base.domains) == 1  # a run that domains can be added to
        sharing = {} if alone else {"trunk.sharing": "none"}
        keys = {**sharing, **self._training(rate, steps, SMOOTHING)}
        return self._recipe(specialist(name), keys, name)

    def specialists(self) -> Recipe:
        """Return the recipe of the run that has the networks of all specialists."""
        return self._recipe(SPECIALISTS, {"trunk.sharing": "none", **self._start()})

    def joint(self, rate: float, steps: int) -> Recipe:
        """Return the recipe of one network that is trained on the labels of all domains."""
        return self._recipe(JOINT, self._training(rate, steps, SMOOTHING))

    def distilled(self, rate: float, steps: int) -> Recipe:
        """Return the recipe of one network that is distilled from the specialists."""
        return self._recipe(DISTILLED, self._training(rate, steps, 0.0) | self._teachers())

    def adapters(self, rate: float, steps: int) -> Recipe:
        """Return the recipe of the distilled network with adapters for each domain."""
        keys = self._training(rate, steps, 0.0, DISTILLED) | self._teachers()
        return self._recipe(ADAPTERS, {**keys, "trunk.adapters": ADAPTED})

    def continued(self, stage: Recipe, name: str, rate: float, steps: int) -> Recipe:
        """Return the recipe that trains the network of another stage further.

        Args:
            stage: The recipe of that stage.
            name: Its name.
        """
        smoothing = stage.train.label_smoothing
        keys = self._training(rate, steps, smoothing, name)
        keys["trunk.adapters"] = stage.trunk.adapters
        return self._recipe(CONTINUED, keys | (self._teachers() if stage.distill.on else {}))

    def path(self, name: str) -> Path:
        """Return the folder of a stage."""
        return self.folder / name

    # -- keys

    def _start(self, init: str | None = None) -> dict[str, Any]:
        """Return the key of the run that a stage starts from, by default the frozen trunk."""
        if init is None:
            init = FROZEN if self.pretrained else None
        return {} if init is None else {"init": self._from_root(self.path(init))}

    def _training(
        self, rate: float, steps: int, smoothing: float, init: str | None = None
    ) -> dict[str, Any]:
        """Return the keys of a training."""
        given = self.base.train.given()
        defaults: dict[str, Any] = {
            "label_smoothing": smoothing,
            "ema": MAX_EMA if self.pretrained else 0.0,
            "head_lr_factor": 1.0,  # heads of a pretrained trunk are solved before
            "eval_every": max(1, steps // EVALUATIONS),
        }
        return {
            "train.lr": rate,
            "train.steps": steps,
            "train.evaluate_start": True,
            **{f"train.{key}": value for key, value in defaults.items() if key not in given},
            **self._start(init),
        }

    def _teachers(self) -> dict[str, Any]:
        given = self.base.distill.given()
        keys = {"teachers": self._from_root(self.path(SPECIALISTS)), **DISTILL}
        return {f"distill.{key}": value for key, value in keys.items() if key not in given}

    def _recipe(self, name: str, keys: dict[str, Any], domain: str | None = None) -> Recipe:
        base = self.base if domain is None else self.base.only([domain])
        return base.with_sets(
            [
                f"name={name[:64]}",
                f"out={json.dumps(self._from_root(self.path(name)))}",
                *(f"{key}={inline(value)}" for key, value in keys.items()),
            ]
        )

    def _from_root(self, path: Path) -> str:
        """Return a path as it is written in a recipe."""
        return relative_to(path, self.base.root)


def specialist(name: str) -> str:
    """Return the name of the stage of one domain's specialist."""
    return f"specialist-{name}"
