"""Recipe: the settings of a training, read from TOML; validated, immutable and complete."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, PrivateAttr, field_validator, model_validator

from onetrunk.config.distill import Distill
from onetrunk.config.optimizers import Start
from onetrunk.config.sets import apply_sets, grid
from onetrunk.config.to_toml import document_of, settings_to_toml
from onetrunk.config.train import Train
from onetrunk.data.domain import Domain
from onetrunk.data.domain_settings import DomainSettings
from onetrunk.data.seeded import seed_of
from onetrunk.data.task import check_name
from onetrunk.errors import BadInput
from onetrunk.nn.model_files import saved_normalization
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.trunk_settings import TrunkSettings
from onetrunk.nn.universal import Universal
from onetrunk.nn.weights import timm_normalization
from onetrunk.settings import LIST, Settings

FILE = "recipe.toml"
MAX_BYTES = 2**20


class Recipe(Settings):
    """The settings of `onetrunk train`. Recipes are equal if all of their keys are equal."""

    name: str = Field(description="Name of the run")
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Seed of all random numbers")
    out: str = Field(default="", description="Folder of the run; empty: runs/NAME")
    init: str = Field(default="", description="Folder of a finished run to start from")
    base: str = Field(default=".", description="Folder that relative paths start from")
    trunk: TrunkSettings = TrunkSettings()
    domains: Annotated[tuple[DomainSettings, ...], LIST] = Field(
        description="At least one [[domains]] table with a name and a source"
    )
    train: Train = Train()
    distill: Distill = Distill()
    _folder: Path = PrivateAttr(default=Path())  # the folder of the recipe's file
    _document: dict[str, Any] | None = PrivateAttr(default=None)  # the keys as they were written

    # -- reading

    @classmethod
    def read(cls, path: str | os.PathLike[str], sets: Sequence[str] = ()) -> Recipe:
        """Return the recipe in a file or in the folder of a run.

        Args:
            path: The file or the folder.
            sets: Keys to change, as `KEY=VALUE`.
        """
        text, place = read_text(path)
        return cls.parse(text, place.parent, sets, place.name)

    @classmethod
    def named(cls, name: str, sets: Sequence[str] = ()) -> Recipe:
        """Return a named recipe; relative paths start from the current folder."""
        known = named_recipes()
        if name not in known:
            raise BadInput("unknown recipe", got=name, available=known, try_="onetrunk recipes")
        return cls.parse(known[name], sets=sets, what=name)

    @classmethod
    def parse(
        cls,
        text: str,
        base: str | os.PathLike[str] = ".",
        sets: Sequence[str] = (),
        what: str = "the recipe",
    ) -> Recipe:
        """Return the recipe in a text.

        Args:
            text: The TOML text.
            base: The folder of its file.
            sets: Keys to change, as `KEY=VALUE`.
            what: The name of the text in errors.
        """
        return cls.from_document(apply_sets(parse_toml(text, what), sets), Path(base))

    @classmethod
    def from_domains(cls, domains: Sequence[str], name: str | None = None) -> Recipe:
        """Return a recipe with all defaults for domains that are given as `NAME=SOURCE`."""
        tables = []
        errors: list[BadInput] = []
        for text in domains:
            domain, equals, source = text.partition("=")
            if not equals:
                errors.append(
                    BadInput(
                        "expected --domain NAME=SOURCE",
                        got=text,
                        try_="--domain shop=folder:photos/shop",
                    )
                )
                continue
            try:  # here, as the name of the run is made of these names
                check_name(domain, "domain")
            except BadInput as error:
                errors.append(error)
            tables.append({"name": domain, "source": source})
        if errors:
            raise BadInput.several(errors)
        if not tables:
            raise BadInput("expected at least one domain", try_="--domain shop=folder:photos/shop")
        if name is None:
            name = "-".join(table["name"] for table in tables)[:64].rstrip("-")
        return cls.from_document({"name": name, "domains": tables}, Path())

    @classmethod
    def from_document(cls, document: Mapping[str, Any], folder: Path) -> Recipe:
        """Return the recipe in a document; keys that it leaves out count as not set.

        Args:
            document: The keys.
            folder: The folder that its paths start from.
        """
        recipe = cls.of(document)
        recipe._folder = folder
        recipe._document = dict(document)
        return recipe

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and not given.get("out"):
            return {**given, "out": f"runs/{given.get('name')}"}
        return given

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_name(name, "run")

    @field_validator("domains")
    @classmethod
    def _domains(cls, domains: tuple[DomainSettings, ...]) -> tuple[DomainSettings, ...]:
        if not domains:
            raise BadInput("expected at least one domain", got=[])
        names = [domain.name for domain in domains]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise BadInput("expected a different name for each domain", got=", ".join(repeated))
        return domains

    @model_validator(mode="after")
    def _lwf(self) -> Recipe:
        if self.distill.uses_lwf and (self.train.frozen or not self.init):
            raise BadInput(
                "it needs a network in init, and a trunk that is trained",
                place="distill.lwf",
                got="train.frozen = true" if self.init else "no init",
                try_="distill.enabled = false" if self.init else "init = a finished run",
            )
        return self

    @model_validator(mode="after")
    def _fill_in_train(self) -> Recipe:
        """Fill in the keys of [train] that depend on the weights at the start."""
        object.__setattr__(self, "train", self.train.starting(self.start, self.taught))
        return self

    @property
    def start(self) -> Start:
        """The weights of the trunk at the start, as far as defaults depend on them."""
        return "scratch" if self.trunk.pretrained is False else "pretrained"

    @property
    def taught(self) -> bool:
        """Whether there are teachers or earlier predictions to learn from, beside labels."""
        return self.distill.on or self.distill.uses_lwf

    # -- writing

    def notes(self) -> dict[str, dict[str, str]]:
        """Say which values of [train] are defaults."""
        return {"train": self.train.default_notes(self.start, self.taught)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.document() == other.document()

    __hash__ = None  # type: ignore[assignment]

    def document(self) -> dict[str, Any]:
        """Return all keys, with values as written in a file."""
        return document_of(self)

    def to_toml(self) -> str:
        """Return the recipe with every key as TOML; it parses to an equal recipe."""
        return settings_to_toml(self)

    def text_in(self, folder: str | os.PathLike[str]) -> str:
        """Return the text of this recipe for `folder`; an equal file in it keeps its text."""
        moved = self.moved_to(folder)
        try:
            text = (Path(folder) / FILE).read_text("utf-8")
            if self.parse(text, folder) == moved:
                return text
        except (OSError, UnicodeDecodeError, BadInput):
            pass
        return moved.to_toml()

    # -- folders

    @property
    def root(self) -> Path:
        """The folder that relative paths start from."""
        return self._folder / self.base

    @property
    def out_folder(self) -> Path:
        """The folder of the run, as a short path."""
        long = self.root / self.out
        short = os.path.normpath(long)
        return Path(short) if os.path.realpath(short) == os.path.realpath(long) else long

    @property
    def init_folder(self) -> Path | None:
        """The finished run to start from, if any."""
        return self.root / self.init if self.init else None

    # -- variations

    def with_sets(self, sets: Sequence[str]) -> Recipe:
        """Return this recipe with changed keys: `["train.lr=0.1", "domains.shop.size=96"]`."""
        document = self.document() if self._document is None else self._document
        return self.from_document(apply_sets(document, sets), self._folder)

    def only(self, names: Sequence[str]) -> Recipe:
        """Return this recipe with some of its domains."""
        document = dict(self.document() if self._document is None else self._document)
        document["domains"] = [d for d in document["domains"] if d["name"] in names]
        return self.from_document(document, self._folder)

    def grid(self, sets: Sequence[str]) -> list[tuple[str, list[str]]]:
        """Return the combinations of several values per key as (label, sets), all validated."""
        combinations = grid(sets)
        for _, one in combinations:
            self.with_sets(one)
        return combinations

    def without_weights(self) -> Recipe:
        """Return this recipe with random weights of its trunk, and the same training."""
        trunk = self.trunk.model_copy(update={"pretrained": False})
        return self.model_copy(update={"trunk": trunk})

    def moved_to(self, folder: str | os.PathLike[str]) -> Recipe:
        """Return this recipe for a file in another folder; its paths keep their meaning."""
        target, root = os.path.realpath(folder), os.path.realpath(self.root)
        try:
            base = os.path.relpath(root, target)
        except ValueError:  # another drive
            base = root
        if Path(self.base).is_absolute():
            base = self.base
        document = {**(self._document or self.document()), "base": base.replace(os.sep, "/")}
        return self.from_document(document, Path(folder))

    # -- domains and models

    @property
    def objects(self) -> list[str]:
        """The users' objects that the recipe names, as `package.module:thing`."""
        trunk, train, distill = self.trunk, self.train, self.distill
        names = [trunk.arch, trunk.norm, trunk.adapters, distill.features, distill.aligner]
        names += [train.sampling, train.weighting, *train.loggers]
        names += [name for domain in self.domains for name in domain.objects.values()]
        return list(dict.fromkeys(name for name in names if ":" in name))

    def make_domains(self) -> list[Domain]:
        """Return the domains; nothing is read yet."""
        return [Domain.of(settings, self.root) for settings in self.domains]

    def make_trunk(self, download: bool = True) -> Trunk:
        """Return the trunk, without domains.

        Args:
            download: Whether timm's weights are loaded, or else random ones stand for them.
        """
        settings = self.trunk
        if settings.pretrained is True and not download:
            trunk = Trunk.of(settings.model_copy(update={"pretrained": False}), self.root)
            trunk.normalization = timm_normalization(trunk.net, trunk.arch)
        else:
            trunk = Trunk.of(settings, self.root)
        if self.init_folder is not None:  # whose weights replace those of the trunk
            trunk.normalization = saved_normalization(self.init_folder)
        return trunk

    def make_model(self, domains: Sequence[Domain], download: bool = True) -> dict[str, Universal]:
        """Return the seeded model under the key ""; with sharing = "none", one per domain.

        The initial weights of a specialist depend only on the seed and the name of its domain.

        Args:
            domains: The domains.
            download: As for `make_trunk`.
        """
        if self.trunk.sharing != "none":
            with seeded_weights(self.seed):
                trunk = self.make_trunk(download)
                return {"": Universal(trunk, domains, pair=self.trunk.pair)}
        models = {}
        for domain in domains:
            with seeded_weights(seed_of(self.seed, domain.name)):
                models[domain.name] = Universal(self.make_trunk(download), [domain])
        return models


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Seed torch's generator for new weights, and restore its state at the end."""
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would also seed the generators of every device
        torch.default_generator.manual_seed(seed)
        yield


def parse_toml(text: str, what: str) -> dict[str, Any]:
    """Return the document in a TOML text; `what` is the name of the text in errors."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"{what} is not valid TOML", got=str(error)[:120]) from None


def read_text(path: str | os.PathLike[str]) -> tuple[str, Path]:
    """Return the text and the path of a recipe, given its file or the folder of a run."""
    file = Path(path)
    file = file / FILE if file.is_dir() else file
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        folder = file.parent
        recipes = sorted(p.name for p in folder.glob("*.toml")) if folder.is_dir() else []
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise BadInput(
            f"cannot read the recipe {file} ({reason})",
            got=file.name,
            available=[*recipes, *named_recipes()],
            try_="onetrunk recipes folders > recipe.toml to write one to start from",
        ) from None
    if len(content) > MAX_BYTES:
        raise BadInput(f"{file}: a recipe has at most 1 MB")
    try:
        return content.decode("utf-8"), file
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not UTF-8 text", got=str(error)[:80]) from None


def named_recipes() -> dict[str, str]:
    """Return the texts of the recipes in the package, by name."""
    folder = files("onetrunk") / "config" / "recipes"
    paths = [path for path in folder.iterdir() if path.name.endswith(".toml")]
    return dict(sorted((p.name.removesuffix(".toml"), p.read_text("utf-8")) for p in paths))
