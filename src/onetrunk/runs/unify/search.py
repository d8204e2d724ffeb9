"""The search for a learning rate by successive halving, over trainings that pause and go on.

All rates start the training of full length. At each rung the worse ones are dropped by their
validation error there; the others continue. So the rate that is left has been trained without a
break, as if it had been the only one.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onetrunk.config import Recipe
from onetrunk.errors import Diverged, Failed
from onetrunk.progress import say
from onetrunk.runs.unify.plan import RUNGS, survivors
from onetrunk.store.atomic import write_atomic
from onetrunk.store.run_folder import METRICS, RECIPE

TrainUntil = Callable[[Recipe, int | None], object]  # trains a recipe, to the end or to a step


def search(
    name: str,
    rates: Sequence[float],
    recipe_of: Callable[[float], Recipe],
    train: TrainUntil,
    record: dict[str, Any],
    write: Callable[[], None],
) -> Recipe:
    """Return the recipe with the best rate, trained to the last rung or further.

    Args:
        name: The name of the stage, for messages.
        rates: The learning rates, ascending.
        recipe_of: Returns the recipe of a rate.
        train: Trains a recipe until a step.
        record: The decisions of the stage; a search that is continued starts from them.
        write: Writes the record.
    """
    left: list[float] = record.setdefault("left", list(rates))
    rungs: list[dict[str, Any]] = record.setdefault("rungs", [])
    for rung, keep in list(zip(RUNGS, survivors(len(rates)), strict=True))[len(rungs) :]:
        if len(left) == 1:
            break
        scores: dict[float, float] = {}
        for rate in left:
            trial = trial_of(recipe_of(rate), rate)
            step = step_at(rung, trial)
            try:
                train(trial, step)
                scores[rate] = score_at(trial.out_folder, step)
            except Diverged as error:
                say(f"{name}: the learning rate {rate:g} is too high: {error}")
                scores[rate] = math.inf
        if all(map(math.isinf, scores.values())):
            raise Failed(
                f"{name}: the training diverges with every learning rate",
                got=", ".join(f"{rate:g}" for rate in scores),
                try_="--set train.lr=… with a lower one, in another --out",
            )
        dropped = sorted(scores, key=lambda rate: (scores[rate], rate))[keep:]
        dropped += [rate for rate in left if rate not in dropped and math.isinf(scores[rate])]
        shown = ", ".join(f"{rate:g}: {score:.2f}" for rate, score in scores.items())
        say(f"{name}: validation after {rung:.0%} of the steps, by learning rate: {shown}")
        left = [rate for rate in left if rate not in dropped]
        finite = {f"{r:g}": s if math.isfinite(s) else None for r, s in scores.items()}
        rungs = [*rungs, {"step": step, "scores": finite}]
        record |= {"left": left, "rungs": rungs}
        write()
    (best,) = left
    for rate in rates:  # here, so that a search that was interrupted leaves nothing behind
        if rate != best:
            shutil.rmtree(trial_of(recipe_of(rate), rate).out_folder, ignore_errors=True)
    recipe = recipe_of(best)
    tried, final = trial_of(recipe, best).out_folder, recipe.out_folder
    if tried.is_dir() and not final.exists():
        tried.rename(final)
    if (path := final / RECIPE).is_file():  # it names the folder
        text = recipe.text_in(final)
        if path.read_text("utf-8") != text:
            write_atomic(path, text)
    return recipe


def trial_of(recipe: Recipe, rate: float) -> Recipe:
    """Return the recipe for the folder of a rate that is tried."""
    return recipe.with_sets([f"out={json.dumps(f'{recipe.out}-lr-{rate:g}')}"])


def step_at(rung: float, recipe: Recipe) -> int:
    """Return the step of a rung: that of a validation."""
    every, steps = recipe.train.eval_every, recipe.train.steps or 0
    return max(1, round(rung * steps / every)) * every


def score_at(run: Path, step: int) -> float:
    """Return the mean validation error of a run at a step."""
    for line in (run / METRICS).read_text("utf-8").splitlines():
        document = json.loads(line)
        if document.get("step") == step and document.get("score") is not None:
            return float(document["score"])
    raise Failed(
        f"{run / METRICS} has no validation at step {step}",
        try_=f"remove {run}, and type the same command again",
    )
