"""What a growth does, as its folder's recipe.toml says it: one domain, [grow] and [train]."""

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
from onetrunk.nn.adapters import ADAPTERS, NO_ADAPTERS, check_rank

KINDS = (NO_ADAPTERS, "norm", *ADAPTERS)  # what a new domain may own, beside its head
USUAL = "parallel"
WEIGHTING = ("weighting", "weighting_settings")


class Grow(Part):
    """What the new domain owns, and where its slots start."""

    adapters: str = Field(default=USUAL, description=" | ".join((*KINDS, "auto")))
    rank: Annotated[int | None, BeforeValidator(auto)] = Field(
        default=None, ge=1, description="of low-rank adapters; auto: a sixteenth of the width"
    )
    budget: float = Field(
        default=0.15, gt=0, description="of auto: a pack's largest size, a share of the trunk's"
    )
    start: str = Field(
        default="auto", description="auto | trunk | a domain, whose slots the new one starts from"
    )
    few: Literal["auto", "yes", "no"] = Field(
        default="auto", description="class means first, folds to choose by; auto: under 8 a class"
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
    def _rank(self) -> Grow:
        if self.adapters != "auto":
            check_rank(kept(self.adapters), self.rank)
        return self


def kept(kind: str) -> str:
    """What a card calls it: a domain with norms alone, or with a head alone, has no adapters."""
    return NO_ADAPTERS if kind == "norm" else kind


class Growth(Part):
    """Everything that a growth depends on but the images themselves."""

    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="of all that is drawn")
    base: str = Field(default=".", description="where relative paths start")
    trunk: str = Field(default="", description="SHA-256 of the trunk that it grows on")
    version: int = Field(default=1, ge=1, description="of this domain's pack")
    grow: Grow = Grow()
    domains: Annotated[tuple[DomainPart, ...], Field(strict=False)] = Field(
        description="[[domains]], the one that grows"
    )
    train: Train = Train()

    @field_validator("domains")
    @classmethod
    def _one(cls, domains: tuple[DomainPart, ...]) -> tuple[DomainPart, ...]:
        if len(domains) != 1:
            raise BadInput("one domain grows at a time", got=len(domains))
        return domains

    @property
    def domain(self) -> DomainPart:
        """The one that grows."""
        return self.domains[0]

    def to_toml(self) -> str:
        """All of it, every key said; `read` takes it back."""
        root = document_of(self, ("grow", "domains", "train"))
        unset = tuple(name for name in LENGTHS if getattr(self.train, name) is None)
        parts = [
            section("", root, Growth, ()),
            section("[grow]", document_of(self.grow), Grow, ()),
            section("[[domains]]", document_of(self.domain), DomainPart, ("tasks",)),
            section("[train]", document_of(self.train, unset), Train, ()),
        ]
        return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def read(folder: Path) -> Growth:
    """The growth that a folder holds."""
    text, place = read_text(folder)
    try:
        return Growth.of(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"{place} is not TOML", got=str(error)[:120]) from None
    except BadInput as error:
        raise BadInput(f"{place}: {str(error).split(chr(10))[0]}") from None


def domain_of(folder: Path) -> Domain:
    """The domain that was grown, as its folder says where its images are."""
    growth = read(folder)
    return growth.domain.make(folder / growth.base)


def base_from(base: Path, folder: Path) -> str:
    """A folder as a file in another one names it."""
    if base.is_absolute():
        return base.as_posix()
    try:
        return os.path.relpath(os.path.realpath(base), os.path.realpath(folder)).replace(
            os.sep, "/"
        )
    except ValueError:  # another drive
        return os.path.realpath(base)


def train_like(folder: Path, networks: int = 1) -> dict[str, Any]:
    """[train] of the run in a folder, for one more domain: as many steps as each of its own had.

    Hours were for all of its domains, so one has its share of them.
    """
    if not (folder / FILE).is_file():
        return {}
    document = document_of(Recipe.read(folder).train)
    given = {key: value for key, value in document.items() if value != "auto"}
    for name in ("frozen", "sampling", "loggers", *WEIGHTING):  # of several domains
        given.pop(name, None)
    if (hours := given.get("hours")) is not None:
        given["hours"] = hours / max(1, networks)
    return {k: v for k, v in given.items() if v is not None}


def settled(document: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """A growth's document with the rest of [train] as the run's own."""
    said, rest = document.get("train", {}), dict(like)
    if any(name in said for name in LENGTHS):
        for name in LENGTHS:
            rest.pop(name, None)
    if "optimizer" in said:  # its rate and its decay are its own
        for name in ("weight_decay", "lr"):
            rest.pop(name, None)
    return {**document, "train": {**rest, **said}}
