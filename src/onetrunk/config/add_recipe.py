"""The recipe of a domain that is added to a run: one domain, [add] and [train]."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from onetrunk.config import Recipe, Train
from onetrunk.config.domains import DomainPart
from onetrunk.config.part import Part
from onetrunk.config.recipe import FILE, read_text
from onetrunk.config.to_toml import document_of, section
from onetrunk.config.train import LENGTHS, auto
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.nn.adapters import ADAPTERS, check_rank

KINDS = ("none", "norm", *ADAPTERS[1:])  # what a new domain may own, beside its head
DEFAULT_ADAPTERS = "parallel"
Few = bool | Literal["auto"]


class AddSettings(Part):
    """[add]: what the new domain owns, and where its slots start."""

    adapters: str = Field(default=DEFAULT_ADAPTERS, description=" | ".join((*KINDS, "auto")))
    rank: Annotated[int | None, BeforeValidator(auto)] = Field(
        default=None, ge=1, description="of low-rank adapters; auto: a sixteenth of the width"
    )
    budget: float = Field(
        default=0.15, gt=0, description="for auto: largest size of a pack, as a share of the trunk"
    )
    start: str = Field(
        default="auto", description="auto | trunk | a domain, whose slots the new one starts from"
    )
    few: Few = Field(
        default="auto",
        description="few-shot methods, chosen on folds; auto: below 8 images per class",
    )
    decay: Annotated[float | None, BeforeValidator(auto)] = Field(
        default=None, gt=0, description="factor on weight_decay; auto: by adapters and images"
    )

    @field_validator("adapters")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in (*KINDS, "auto") and ":" not in kind:
            raise BadInput(
                "unknown adapters",
                got=kind,
                available=(*KINDS, "auto"),
                try_="or package.module:thing",
            )
        return kind

    @model_validator(mode="after")
    def _rank(self) -> AddSettings:
        if self.adapters != "auto":
            check_rank(card_adapters(self.adapters), self.rank)
        return self


def card_adapters(kind: str) -> str:
    """The adapters in the card of a domain that owns this: "norm" has norms, but no adapters."""
    return "none" if kind == "norm" else kind


class AddRecipe(Part):
    """All settings of a domain that is added or updated; `added/NAME/recipe.toml`."""

    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="of all that is drawn")
    base: str = Field(default=".", description="where relative paths start")
    trunk: str = Field(default="", description="SHA-256 of the trunk")
    version: int = Field(default=1, ge=1, description="of this domain's pack")
    add: AddSettings = AddSettings()
    domains: Annotated[tuple[DomainPart, ...], Field(strict=False)] = Field(
        description="[[domains]], the one that is added"
    )
    train: Train = Train()

    @field_validator("domains")
    @classmethod
    def _one(cls, domains: tuple[DomainPart, ...]) -> tuple[DomainPart, ...]:
        if len(domains) != 1:
            raise BadInput("expected one domain", got=len(domains))
        return domains

    @property
    def domain(self) -> DomainPart:
        """The domain that is added."""
        return self.domains[0]

    def to_toml(self) -> str:
        """The recipe with every key; `read_add_recipe` reads it."""
        root = document_of(self, ("add", "domains", "train"))
        unset = tuple(name for name in LENGTHS if getattr(self.train, name) is None)
        parts = [
            section("", root, AddRecipe, ()),
            section("[add]", document_of(self.add), AddSettings, ()),
            section("[[domains]]", document_of(self.domain), DomainPart, ("tasks",)),
            section("[train]", document_of(self.train, unset), Train, ()),
        ]
        return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def read_add_recipe(folder: Path) -> AddRecipe:
    """The recipe in the folder of a domain that is added."""
    text, place = read_text(folder)
    try:
        return AddRecipe.of(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"{place} is not TOML", got=str(error)[:120]) from None
    except BadInput as error:
        first = error.errors[0]
        raise BadInput(
            f"{place}: {first.expected}", got=first.got, available=first.available, try_=first.try_
        ) from None


def added_domain(folder: Path) -> Domain:
    """The domain whose recipe a folder holds."""
    recipe = read_add_recipe(folder)
    return recipe.domain.make(folder / recipe.base)


def base_from(base: Path, folder: Path) -> str:
    """The path of `base` as a file in `folder` writes it."""
    if base.is_absolute():
        return base.as_posix()
    try:
        return os.path.relpath(os.path.realpath(base), os.path.realpath(folder)).replace(
            os.sep, "/"
        )
    except ValueError:  # another drive
        return os.path.realpath(base)


def train_like(folder: Path, domains: int = 1) -> dict[str, Any]:
    """The [train] of a run for one more domain: as many steps as each of its own had.

    Args:
        folder: The run; one without a recipe gives no settings.
        domains: The number of its domains. `hours` are divided by it.
    """
    if not (folder / FILE).is_file():
        return {}
    document = document_of(Recipe.read(folder).train)
    settings = {key: value for key, value in document.items() if value != "auto"}
    for name in ("frozen", "sampling", "loggers", "weighting", "weighting_settings"):
        settings.pop(name, None)  # those are of several domains, or of that machine
    if (hours := settings.get("hours")) is not None:
        settings["hours"] = hours / max(1, domains)
    return {key: value for key, value in settings.items() if value is not None}


def merged_train(given: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """The given settings of [train], and those of the run where they do not contradict.

    Args:
        given: What the user set.
        like: From `train_like`.
    """
    rest = dict(like)
    if any(name in given for name in LENGTHS):
        for name in LENGTHS:
            rest.pop(name, None)
    if "optimizer" in given:  # each optimizer has its own learning rate and decay
        for name in ("weight_decay", "lr"):
            rest.pop(name, None)
    return {**rest, **given}
