"""The recipe of a domain that is added to a run: one domain, [add] and [train]."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, field_validator, model_validator

from onetrunk.config.optimizers import without_optimizer
from onetrunk.config.recipe import FILE, Recipe, parse_toml, read_text
from onetrunk.config.to_toml import document_of, settings_to_toml
from onetrunk.config.train import LENGTHS, Train
from onetrunk.data.domain import Domain
from onetrunk.data.domain_settings import DomainSettings
from onetrunk.errors import BadInput
from onetrunk.nn.adapters import ADAPTERS, NO_ADAPTERS, check_rank
from onetrunk.settings import AUTO, LIST, Settings

DEFAULT_ADAPTERS = "parallel"
KINDS = (NO_ADAPTERS, "norm", *ADAPTERS)  # what a domain can own beside its heads
Few = bool | Literal["auto"]


def _few(value: Any) -> Few:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value == "auto":
        return "auto"
    raise BadInput('expected true, false or "auto"', got=value)


class AddSettings(Settings):
    """What a new domain owns, and how its pack is trained."""

    adapters: str = Field(
        default=DEFAULT_ADAPTERS,
        description="What the domain owns beside its heads; if it is not given, auto for few "
        f"images: {' | '.join((*KINDS, 'auto'))}",
    )
    rank: Annotated[int | None, AUTO] = Field(
        default=None, ge=1, description="Rank of low-rank adapters; auto: 1/16 of the width"
    )
    budget: float = Field(
        default=0.15,
        gt=0,
        description="Largest size of a pack with adapters = auto, as a share of the trunk",
    )
    start: str = Field(
        default="auto",
        description="What the new slots are copied from: auto | trunk | the name of a domain",
    )
    few: Annotated[Few, PlainValidator(_few)] = Field(
        default="auto",
        description="Use few-shot methods, chosen on folds; auto: below 50 images a class",
    )
    decay: Annotated[float | None, AUTO] = Field(
        default=None,
        gt=0,
        description="Factor on train.weight_decay; auto: by adapters and number of images",
    )

    @field_validator("adapters")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in (*KINDS, "auto") and ":" not in kind:
            raise BadInput(
                "unknown adapters",
                got=kind,
                available=(*KINDS, "auto"),
                try_="one of these, or package.module:thing",
            )
        return kind

    @model_validator(mode="after")
    def _rank(self) -> AddSettings:
        # a user's adapters are checked when they are made: reading settings imports no code
        if self.adapters != "auto" and ":" not in self.adapters:
            check_rank(card_adapters(self.adapters), self.rank)
        return self


def card_adapters(kind: str) -> str:
    """Return the adapters in the card of a domain, which are none for norms alone."""
    return NO_ADAPTERS if kind == "norm" else kind


class AddRecipe(Settings):
    """All settings of a domain that is added or updated."""

    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Seed of all random numbers")
    base: str = Field(default=".", description="Folder that relative paths start from")
    trunk: str = Field(default="", description="SHA-256 of the trunk")
    version: int = Field(default=1, ge=1, description="Version of the domain's pack")
    add: AddSettings = AddSettings()
    domains: Annotated[tuple[DomainSettings, ...], LIST] = Field(
        description="The [[domains]] table of the domain that is added"
    )
    train: Train = Train()

    @field_validator("domains")
    @classmethod
    def _one(cls, domains: tuple[DomainSettings, ...]) -> tuple[DomainSettings, ...]:
        if len(domains) != 1:
            raise BadInput("expected one domain", got=len(domains))
        return domains

    def notes(self) -> dict[str, dict[str, str]]:
        """Say which values of [train] are defaults."""
        return {"train": self.train.default_notes("scratch", taught=False)}

    @property
    def domain(self) -> DomainSettings:
        """The domain that is added."""
        return self.domains[0]

    def to_toml(self) -> str:
        """Return the recipe with every key as TOML; `read_add_recipe` reads it."""
        return settings_to_toml(self)


def read_add_recipe(folder: Path) -> AddRecipe:
    """Return the recipe in the folder of a domain that is added."""
    text, path = read_text(folder)
    return AddRecipe.of(parse_toml(text, str(path)), f"{path}: ")


def added_domain(folder: Path) -> Domain:
    """Return the domain whose recipe a folder holds."""
    recipe = read_add_recipe(folder)
    return Domain.of(recipe.domain, folder / recipe.base)


def base_from(base: Path, folder: Path) -> str:
    """Return `base` relative to `folder`, or as an absolute path if that is impossible."""
    if base.is_absolute():
        return base.as_posix()
    try:
        return os.path.relpath(os.path.realpath(base), os.path.realpath(folder)).replace(
            os.sep, "/"
        )
    except ValueError:  # another drive
        return os.path.realpath(base)


def train_like(folder: Path, domains: int = 1) -> dict[str, Any]:
    """Return the [train] settings of a run for one more domain, with the same number of steps.

    Args:
        folder: The folder of the run; without a recipe, the result is empty.
        domains: The number of its domains; `hours` is divided by it.
    """
    if not (folder / FILE).is_file():
        return {}
    document = document_of(Recipe.read(folder).train)
    for name in ("frozen", "sampling", "loggers", "threads", "weighting", "weighting_settings"):
        document.pop(name)  # these are for several domains, or for another machine
    if (hours := document.get("hours")) is not None:
        document["hours"] = hours / max(1, domains)
    return document


def merged_train(given: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given [train] settings, completed by those of a run that do not contradict them.

    Args:
        given: The keys that the user set.
        like: The settings of the run, from `train_like`.
    """
    rest = dict(like)
    if any(name in given for name in LENGTHS):
        for name in LENGTHS:
            rest.pop(name, None)
    if "optimizer" in given:
        rest = without_optimizer(rest, given["optimizer"])
    return {**rest, **given}
