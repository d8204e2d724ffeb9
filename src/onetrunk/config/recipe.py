"""Recipe: what to do, from TOML; validated, frozen, complete."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PrivateAttr, field_validator, model_validator

from onetrunk.config.distill import Distill
from onetrunk.config.domains import DomainPart
from onetrunk.config.part import Part
from onetrunk.config.sets import apply_sets, grid
from onetrunk.config.to_toml import document_of, section
from onetrunk.config.train import LENGTHS, Train
from onetrunk.config.trunk import TrunkPart
from onetrunk.data.domain import Domain
from onetrunk.data.task import check_name
from onetrunk.errors import BadInput

if TYPE_CHECKING:
    from onetrunk.config.check import Checked
    from onetrunk.nn.universal import Universal

FILE = "recipe.toml"
MOST = 2**20  # bytes of a recipe


class Recipe(Part):
    """What `onetrunk train` does. Two recipes are equal where all of their keys are."""

    name: str = Field(description="of the run")
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="of all that is drawn")
    out: str = Field(default="", description="the run's folder")
    init: str = Field(default="", description="a finished run to start from")
    base: str = Field(default=".", description="where relative paths start")
    trunk: TrunkPart = TrunkPart()
    domains: Annotated[tuple[DomainPart, ...], Field(strict=False)] = Field(
        description="[[domains]], each with a name and a source"
    )
    train: Train = Train()
    distill: Distill = Distill()
    _folder: Path = PrivateAttr(default=Path())  # where the recipe's file lies
    _said: dict[str, Any] | None = PrivateAttr(default=None)  # the document as it was written

    # -- reading

    @classmethod
    def read(cls, path: str | os.PathLike[str], sets: Sequence[str] = ()) -> Recipe:
        """The recipe of a file, or of a run's folder; `sets`: keys changed on the way."""
        text, place = read_text(path)
        return cls.parse(text, place.parent, sets, place.name)

    @classmethod
    def named(cls, name: str, sets: Sequence[str] = ()) -> Recipe:
        """One of the recipes inside the package; relative paths start where you are."""
        known = named_recipes()
        if name not in known:
            raise BadInput("no such recipe", got=name, available=known, try_="onetrunk recipes")
        return cls.parse(known[name], sets=sets, what=name)

    @classmethod
    def parse(
        cls,
        text: str,
        base: str | os.PathLike[str] = ".",
        sets: Sequence[str] = (),
        what: str = "the recipe",
    ) -> Recipe:
        """The recipe that a text holds; `base`: the folder of its file."""
        try:
            document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise BadInput(f"{what} is not TOML", got=str(error)[:120], try_="mend it") from None
        return cls._made(apply_sets(document, sets), Path(base))

    @classmethod
    def from_domains(cls, domains: Sequence[str], name: str | None = None) -> Recipe:
        """A recipe with every default over `NAME=SOURCE` each."""
        found = []
        for text in domains:
            own, equals, source = text.partition("=")
            if not equals:
                raise BadInput(
                    "--domain is NAME=SOURCE", got=text, try_="--domain shop=folder:photos/shop"
                )
            found.append({"name": own, "source": source})
        if not found:
            raise BadInput("expected at least one domain", try_="--domain shop=folder:photos/shop")
        if name is None:
            name = "-".join(part["name"] for part in found)[:64].rstrip("-")
        return cls._made({"name": name, "domains": found}, Path())

    @classmethod
    def _made(cls, document: Mapping[str, Any], folder: Path) -> Recipe:
        made = cls.of(document)
        made._folder = folder
        made._said = dict(document)
        return made

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and not given.get("out"):
            return {**given, "out": f"runs/{given.get('name')}"}
        return given

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_name(name, "run")

    @field_validator("domains")
    @classmethod
    def _names(cls, domains: tuple[DomainPart, ...]) -> tuple[DomainPart, ...]:
        if not domains:
            raise BadInput("expected at least one", got=[])
        names = [part.name for part in domains]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadInput("each domain has a name of its own", got=", ".join(twice))
        return domains

    @model_validator(mode="after")
    def _uses_lwf(self) -> Recipe:
        if self.distill.uses_lwf and (self.train.frozen or not self.init):
            raise BadInput(
                "distill.lwf: it holds old answers while the trunk of `init` moves",
                got="train.frozen = true" if self.init else "no init",
                try_="distill.enabled = false" if self.init else "init = a finished run",
            )
        return self

    # -- what it says

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.document() == other.document()

    __hash__ = None  # type: ignore[assignment]

    def document(self) -> dict[str, Any]:
        """All keys as a file spells them."""
        made = document_of(self, ("trunk", "domains", "train", "distill"))
        made["trunk"] = document_of(self.trunk)
        made["domains"] = [document_of(part) for part in self.domains]
        unset = tuple(name for name in LENGTHS if getattr(self.train, name) is None)
        made["train"] = document_of(self.train, unset)
        made["distill"] = document_of(self.distill)
        return made

    def to_toml(self) -> str:
        """The whole recipe, every key said; it parses to an equal one."""
        document = self.document()
        parts = [section("", {k: document[k] for k in ROOT}, Recipe, ())]
        parts.append(section("[trunk]", document["trunk"], TrunkPart, ()))
        for place, domain in enumerate(document["domains"]):
            notes = DomainPart if place == 0 else None  # explained once
            parts.append(section("[[domains]]", domain, notes, ("tasks",)))
        parts.append(section("[train]", document["train"], Train, ()))
        parts.append(section("[distill]", document["distill"], Distill, ()))
        return "\n\n".join("\n".join(lines) for lines in parts) + "\n"

    @property
    def root(self) -> Path:
        """Where relative paths start."""
        return self._folder / self.base

    @property
    def out_folder(self) -> Path:
        """The run's folder, by a path as short as it goes."""
        long = self.root / self.out
        short = os.path.normpath(long)
        return Path(short) if os.path.realpath(short) == os.path.realpath(long) else long

    @property
    def init_folder(self) -> Path | None:
        """The finished run to start from, if any."""
        return self.root / self.init if self.init else None

    # -- others like it

    def with_sets(self, sets: Sequence[str]) -> Recipe:
        """The same with these keys changed: `["train.lr=0.1", "domains.shop.size=96"]`."""
        said = self.document() if self._said is None else self._said
        return self._made(apply_sets(said, sets), self._folder)

    def grid(self, sets: Sequence[str]) -> list[tuple[str, list[str]]]:
        """The combinations of values that list several, each checked: (label, sets)."""
        chosen = grid(sets)
        for _, one in chosen:
            self.with_sets(one)
        return chosen

    def moved_to(self, folder: str | os.PathLike[str]) -> Recipe:
        """The same recipe for a file in another folder: its relative paths still hold there."""
        place, root = os.path.realpath(folder), os.path.realpath(self.root)
        try:
            base = os.path.relpath(root, place)
        except ValueError:  # another drive
            base = root
        if Path(self.base).is_absolute():
            base = self.base
        document = {**(self._said or self.document()), "base": base.replace(os.sep, "/")}
        return self._made(document, Path(folder))

    def text_in(self, folder: str | os.PathLike[str]) -> str:
        """This recipe as a file in `folder`; one there that says the same stays as it is, though an
        older version wrote it, without keys that there are now."""
        moved = self.moved_to(folder)
        try:
            text = (Path(folder) / FILE).read_text("utf-8")
            if self.parse(text, folder) == moved:
                return text
        except (OSError, UnicodeDecodeError, BadInput):
            pass
        return moved.to_toml()

    def differences(self, other: Recipe) -> list[str]:
        """The keys that differ, each with both values: `train.lr: 0.1 and 0.03`."""
        mine, theirs = _flat(self.document()), _flat(other.document())
        keys = [*mine, *(key for key in theirs if key not in mine)]
        absent = object()
        return [
            f"{key}: {_shown(mine.get(key, absent), absent)} and "
            f"{_shown(theirs.get(key, absent), absent)}"
            for key in keys
            if mine.get(key, absent) != theirs.get(key, absent)
        ]

    # -- what it makes

    def make_domains(self) -> list[Domain]:
        """Its domains; nothing is read yet."""
        return [part.make(self.root) for part in self.domains]

    def make_model(self, domains: Sequence[Domain]) -> dict[str, Universal]:
        """The seeded model under the key ""; with sharing = "none" one for each domain."""
        from onetrunk.config.make import make_model

        return make_model(self, domains)

    def check(self) -> Checked:
        """Everything that can be wrong before training, found at once and listed together."""
        from onetrunk.config.check import check

        return check(self)


ROOT = ("name", "seed", "out", "init", "base")


def read_text(path: str | os.PathLike[str]) -> tuple[str, Path]:
    """The text of a recipe's file, or of a run's folder, and which file it was."""
    place = Path(path)
    place = place / FILE if place.is_dir() else place
    try:
        with place.open("rb") as file:
            text = file.read(MOST + 1)
    except (OSError, ValueError) as error:
        folder = place.parent
        there = sorted(p.name for p in folder.glob("*.toml")) if folder.is_dir() else []
        raise BadInput(
            f"cannot read the recipe {place} "
            f"({(getattr(error, 'strerror', None) or str(error)).lower()})",
            got=place.name,
            available=[*there, *named_recipes()],
            try_="onetrunk recipes folders > recipe.toml writes one to start from",
        ) from None
    if len(text) > MOST:
        raise BadInput(f"{place}: a recipe has at most 1 MB")
    try:
        return text.decode("utf-8"), place
    except UnicodeDecodeError as error:
        raise BadInput(f"{place}: not a text in UTF-8", got=str(error)[:80]) from None


def named_recipes() -> dict[str, str]:
    """The texts of the recipes inside the package, by name."""
    found = [
        p for p in (files("onetrunk") / "config" / "recipes").iterdir() if p.name.endswith(".toml")
    ]
    texts = {p.name.removesuffix(".toml"): p.read_text("utf-8") for p in found}
    return dict(sorted(texts.items()))


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """A document by dotted keys; domains by their names."""
    if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
        value = {part["name"]: part for part in value}
    if not isinstance(value, Mapping):
        return {key: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= _flat(inner, f"{key}.{name}" if key else str(name))
    return found


def _shown(value: object, absent: object) -> str:
    return "not there" if value is absent else repr(value)
