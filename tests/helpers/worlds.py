"""Small trainings: a few images of noise, a small network, a handful of steps."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from onetrunk.config import Distill, Recipe, Train
from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.store import checkpoint
from onetrunk.store.run_folder import RunFolder
from onetrunk.testing.models import perturb
from onetrunk.train.callbacks import Callback
from onetrunk.train.distill.lwf import OldPredictions
from onetrunk.train.distill.teachers import Specialist, Teacher
from onetrunk.train.learner import Learner
from onetrunk.train.loop import fit
from onetrunk.train.selection import Selection
from tests.helpers.fakes import CLASSIFY, Fake, labelled, picture

CPU = torch.device("cpu")
SPLITS = ("train", "train", "train", "val", "test")


def noise(count: int = 40, classes: Sequence[str] = ("a", "b"), first: int = 0) -> Fake:
    """A source of 8×8 pixels of noise; sources with other `first` have other images."""
    images = {str(i): picture(first + i, 8, 8) for i in range(count)}
    items = [replace(i, stamp=f"{first}-{i.stamp}") for i in labelled(count, classes, SPLITS)]
    return Fake(CLASSIFY, items, images)


def worlds(*names: str, **more: Any) -> list[Domain]:
    """Domains with different images, and different numbers of them."""
    return [
        Domain(name, noise(40 + 20 * i, "abc"[: 2 + i % 2], 1000 * i), **{"size": 8, **more})
        for i, name in enumerate(names)
    ]


def network(domains: Sequence[Domain], seed: int = 0, **trunk: Any) -> Universal:
    """A network with the smallest trunk, and the same weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Universal(Trunk(trunk.pop("arch", "resnet20"), **trunk), domains)


def specialists(domains: Sequence[Domain], seed: int = 7, **trunk: Any) -> dict[str, list[Teacher]]:
    """A teacher for each domain, with fresh weights and its own statistics."""
    found: dict[str, list[Teacher]] = {}
    for place, domain in enumerate(domains):
        model = network([domain], seed + place, **trunk)
        perturb(model, domain.pixels.size, seed + place)
        tasks = [task.name for task in domain.tasks]
        found[domain.name] = [Specialist(model.eval(), domain.name, domain, tasks, "specialists")]
    return found


def settings(**given: Any) -> Train:
    """Settings; by default a few steps of sgd."""
    usual = {"steps": 8, "batch": 4, "optimizer": "sgd", "lr": 0.05, "warmup": 0.0}
    if "epochs" in given or "hours" in given:
        del usual["steps"]
    return Train.of({**usual, **given})


def learner(
    domains: Sequence[Domain],
    model: Universal | None = None,
    seed: int = 0,
    teachers: Mapping[str, Sequence[Teacher]] | None = None,
    distill: Mapping[str, Any] | None = None,
    old_predictions: OldPredictions | None = None,
    **given: Any,
) -> Learner:
    """A learner in training mode, for `learner.step(next(learner.passes()))`."""
    model = network(domains) if model is None else model
    distillation = Distill.of(distill or {})
    train = settings(**given)
    made = Learner(model, domains, train, CPU, seed, teachers or {}, distillation, old_predictions)
    made.model.train()
    return made


def steps(learner: Learner, count: int) -> list[list[list[Batch]]]:
    """The forward passes of the next steps."""
    return list(itertools.islice(learner.passes(), count))


def weights(model: Universal) -> dict[str, torch.Tensor]:
    """A copy of a model's state."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two states are equal to the bit, names included."""
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


WALL = ("seconds", "images_per_s", "left_s", "since", "metrics_bytes")  # fields that hold times


class Recorder:
    """A logger that records its calls; `then(event, step)` runs after each."""

    def __init__(self, then: Callable[[str, int], None] | None = None) -> None:
        self.events: list[tuple[str, int]] = []
        self.then = then

    def begin(self, plan: Mapping[str, Any]) -> None:
        self._note("begin", plan["step"])

    def log_step(self, record: Mapping[str, Any]) -> None:
        self._note("step", record["step"])

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        self._note("evaluated", record["step"])

    def end(self) -> None:
        self._note("end", -1)

    def _note(self, what: str, step: int) -> None:
        self.events.append((what, step))
        if self.then is not None:
            self.then(what, step)


def at(what: str, step: int, act: Callable[[], Any]) -> Recorder:
    """A logger that runs `act` at an event: "begin", "step", "evaluated" or "end"."""

    def then(now: str, where: int) -> None:
        if (now, where) == (what, step):
            act()

    return Recorder(then)


def go(
    folder: Path,
    domains: Sequence[Domain],
    model: Universal,
    logger: Recorder | None = None,
    teachers: Mapping[str, Sequence[Teacher]] | None = None,
    distill: Mapping[str, Any] | None = None,
    old_predictions: OldPredictions | None = None,
    callbacks: Sequence[Callback] = (),
    pause_at: int | None = None,
    **given: Any,
) -> Selection:
    """Train into a run's folder, or resume the run there."""
    options: dict[str, Any] = {"teachers": teachers or {}, "old_predictions": old_predictions}
    options |= {"callbacks": callbacks, "pause_at": pause_at}
    options["distill"] = Distill.of(distill or {})
    recorder = logger or Recorder()
    resume = (folder / "recipe.toml").exists()
    with RunFolder.open(folder, 'name = "x"\n', resume=resume) as run:
        run.rewind(run.last())
        return fit(model, domains, settings(**given), run, recorder, device=CPU, seed=3, **options)


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without times."""
    text = (folder / "metrics.jsonl").read_text()
    return [timeless(json.loads(line)) for line in text.splitlines()]


def timeless(value: Any) -> Any:
    """Remove the fields that hold times."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in WALL}
    return value


def checkpoints(folder: Path, part: str = "") -> dict[int, tuple[Any, dict[str, torch.Tensor]]]:
    """The checkpoints of a run's folder by step: state without times, and tensors."""
    place = folder / "checkpoints" / part
    found = {step: checkpoint.read(place, step) for step in checkpoint.steps(place)}
    return {step: (timeless(saved.state), saved.tensors()) for step, saved in found.items()}


def assert_same_run(one: Path, other: Path, part: str = "") -> None:
    """Check that two runs have the same lines, and the same checkpoints of common steps."""
    assert lines(one) == lines(other)
    mine, theirs = checkpoints(one, part), checkpoints(other, part)
    assert max(mine) == max(theirs)
    for step in mine.keys() & theirs.keys():
        assert mine[step][0] == theirs[step][0]
        assert same(mine[step][1], theirs[step][1])


TEXT = """
name = "tiny"
out = "runs"
[trunk]
arch = "resnet20"
[[domains]]
name = "digits"
source = "pocket:optdigits"
[train]
steps = 3
batch = 4
"""


def recipe(place: Path) -> Recipe:
    """A recipe of three steps on a bundled domain, into `place`/runs."""
    return Recipe.parse(TEXT, place)
