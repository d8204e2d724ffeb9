"""The plan of `onetrunk unify`, from a sample of the images; nothing is written."""

from __future__ import annotations

from typing import Any

from onetrunk.config import Recipe
from onetrunk.config.check import check
from onetrunk.config.resolve import resolve
from onetrunk.runs.unify.costs import measure_costs
from onetrunk.runs.unify.record import earlier_request
from onetrunk.runs.unify.unify import Unify
from onetrunk.train.device import choose_device


def dry_run(recipe: Recipe, seconds: float, device: str | None = None) -> dict[str, Any]:
    """Return the steps and the estimated seconds of each stage.

    Args:
        recipe: The recipe of the user.
        seconds: The time for everything.
        device: "cpu", "cuda", "cuda:1" or "mps"; None: a GPU if there is one.
    """
    place = choose_device(device)
    resolved = resolve(recipe, place, earlier_request(recipe.out_folder))
    recipe = resolved.recipe
    checked = check(recipe, sample=True)
    work = Unify(recipe, checked.domains, seconds, place)
    costs = measure_costs(recipe, checked.domains, place)
    plan = work.planned(costs)
    return {
        "steps": plan.steps,
        "epochs": plan.steps / costs.epoch,
        "seconds": dict(plan.seconds),
        "total": plan.total,
        "rates": list(work.rates),
        "warnings": [*resolved.notes, *checked.warnings],
        "out": str(work.folder),
    }
