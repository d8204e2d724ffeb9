"""Checks of the folder and the settings of `onetrunk unify`, before any work."""

from __future__ import annotations

from pathlib import Path

from onetrunk.config import Recipe
from onetrunk.errors import BadInput
from onetrunk.runs.unify.record import REQUEST
from onetrunk.store.places import check_folder
from onetrunk.store.run_folder import WRITTEN


def check_out(folder: Path) -> None:
    """Raise BadInput unless the folder is empty, new, or that of an earlier call."""
    continued = (folder / REQUEST).is_file()

    def is_own(path: Path) -> bool:
        return continued and bool(WRITTEN.fullmatch(path.name))

    check_folder(folder, "the folder of onetrunk unify", is_own)


def check_settings(recipe: Recipe) -> None:
    """Refuse settings that the stages decide themselves."""
    given = {
        "trunk.sharing": (recipe.trunk.sharing, "deep"),
        "train.frozen": (recipe.train.frozen, False),
        "init": (recipe.init, ""),
        "distill.teachers": (recipe.distill.teachers, ""),
    }
    for key, (value, expected) in given.items():
        if value != expected:
            raise BadInput(
                "unify decides this itself",
                place=key,
                got=value,
                try_=f"leave it out, or onetrunk train for a single network with {key}",
            )
    kept = recipe.train.given()
    for key in ("eval_every", "patience", "evaluate_start"):
        if key in kept:
            raise BadInput(
                "unify decides this itself, as its search depends on it",
                place=f"train.{key}",
                got=kept[key],
                try_="leave it out",
            )
    if not recipe.distill.enabled:
        raise BadInput(
            "unify compares a network that is distilled",
            place="distill.enabled",
            got=False,
            try_="leave it out, or onetrunk train",
        )
    if recipe.train.hours or recipe.train.epochs:
        raise BadInput(
            "the length of all stages follows from --time",
            place="train.hours" if recipe.train.hours else "train.epochs",
            try_="--time 2h, or train.steps for a fixed length of each stage",
        )
