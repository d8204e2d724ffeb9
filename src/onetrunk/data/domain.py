"""A domain: a named source of images with its own splits, labels, resolution and normalization."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.augment import Augment
from onetrunk.data.cache import Decoded, decode_all, plan_cache
from onetrunk.data.cache_entries import Origin
from onetrunk.data.cache_room import Plan
from onetrunk.data.class_counts import check_classes, few_images
from onetrunk.data.domain_settings import (
    Conflicts,
    DomainSettings,
    Duplicates,
    Normalize,
    Stats,
)
from onetrunk.data.duplicate_groups import find_duplicates, resolve, shared_with_train
from onetrunk.data.index import Index, read_index
from onetrunk.data.objects import check_form, named_source, source_of
from onetrunk.data.pixels import Fit, Pixels
from onetrunk.data.renamed import RenamedClasses
from onetrunk.data.sample import Sample, decode_sample
from onetrunk.data.sources import PYTHON, Source, SourceOptions, user_source
from onetrunk.data.split import Split
from onetrunk.data.splitting import SPLITS
from onetrunk.data.stored_images import GOOD
from onetrunk.data.stratified import LEFT_OUT, NOTHING_KNOWN, KnownSplits
from onetrunk.data.task import Task, TasksLike, check_name
from onetrunk.display import Described, Summary
from onetrunk.errors import BadInput, OnetrunkError, printable

SIZE = 64  # pixels, if neither the user nor the source gives a size
ONE_OF_SEVERAL = ("classify", "embed", "segment")  # kinds that need two classes
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Domain(Described):
    """A domain and its images, which are read when they are first needed.

    Args:
        name: Its name, in lower-case letters, digits, - and _.
        source: `"prefix:rest"` or `"package.module:thing"`; a `Path` of a folder or table; a list
            of (image, label); a pandas or polars DataFrame; a torch `Dataset`, torchvision's
            `ImageFolder`; a `datasets.Dataset` or `DatasetDict`; a mapping of "train", "val" and
            "test" to these; or an object with the methods of `data.sources.Source`. A domain
            without a source has no images; its tasks (with classes) and its size are all that a
            model needs.
        tasks: Kinds, a table of tasks by name, or Task objects; None: all of the source.
        size: This and the arguments up to `allow_bad` are the keys of a recipe's [[domains]]
            table; `onetrunk recipes keys` describes them. None: the default, or, for a domain that
            is added to a run or updated, what the run or the domain has.
        base: The folder that relative paths start from.
        cache: The folder for decoded images; None: the default one; False: store no pixels.
    """

    def __init__(
        self,
        name: str,
        source: object = None,
        tasks: TasksLike | None = None,
        *,
        size: int | tuple[int, int] | None = None,
        fit: Fit | None = None,
        margin: int | None = None,
        fill: int | None = None,
        flip: bool | None = None,
        augment: Augment | Mapping[str, Any] | None = None,
        normalize: Normalize | Stats | None = None,
        allow_normalize: bool | None = None,
        image: str | None = None,
        group: str | None = None,
        split: str | None = None,
        duplicates: Duplicates | None = None,
        conflicts: Conflicts | None = None,
        heads: Mapping[str, Any] | None = None,
        weight: float | None = None,
        batch: int | None = None,
        allow_bad: bool | None = None,
        base: str | Path = ".",
        cache: str | Path | Literal[False] | None = None,
    ) -> None:
        given = {
            key: value
            for key, value in locals().items()
            if key in DomainSettings.model_fields and value is not None
        }
        place = f"domains.{check_name(name, 'domain')}"
        if isinstance(source, Path):
            given["source"] = source = named_source(source, Path(base))
        elif not isinstance(source, str):
            given["source"] = f"{PYTHON}:{type(source).__name__}"
            if source is not None:
                try:
                    check_form(source)
                except BadInput as error:
                    raise error.within(place) from None
        self.settings = DomainSettings.of(given, place)
        self.name = name
        self.source = source
        self.base = Path(base)
        self.cache = cache
        self.sample: Sample | None = None
        self._requested = self.settings.tasks
        self._renamed: Mapping[str, str | None] = {}
        self._known = NOTHING_KNOWN
        self._expected: Stats | None = None

    @classmethod
    def of(cls, settings: DomainSettings, base: str | Path = ".") -> Self:
        """Return the domain with these settings, whose relative paths start from `base`."""
        given = {key: value for key, value in settings.given().items() if value is not None}
        domain = cls(**given, base=base)
        domain.settings = settings  # a key that is explicitly "auto" is set, too
        return domain

    def __repr__(self) -> str:
        return f"Domain({self.name!r}, {self.settings.source!r})"

    def summary(self) -> Summary:
        """Return source, size, splits and tasks; images are listed, but not decoded."""
        facts = []
        tasks: tuple[Task, ...] = self._requested or ()
        try:
            tasks = self.tasks
            facts.append(("pixels", "×".join(map(str, self.shape.size))))
            if self.source is not None:
                index = self.__dict__.get("index") or self.listing  # without decoding
                counts = (f"{name} {len(index.rows(name)):,}" for name in SPLITS)
                facts.append(("images", ", ".join(counts)))
        except (OnetrunkError, OSError) as error:
            facts.append(("cannot be read", str(error)))
        rows = [(task.name, task.kind, task.labels) for task in tasks]
        return Summary(repr(self), facts, ("task", "kind", "labels"), rows)

    @property
    def weight(self) -> float:
        """The weight of its loss."""
        return self.settings.weight

    @property
    def batch(self) -> int | None:
        """The images in a batch; None: as many as the training's other domains."""
        return self.settings.batch

    @property
    def requested_tasks(self) -> tuple[Task, ...] | None:
        """The tasks as the user gave them; None: all of the source."""
        return self._requested

    @cached_property
    def opened(self) -> Source:
        """The source object."""
        if self.source is None:
            raise BadInput(
                f"domain {self.name} has no source and therefore no images",
                try_="Domain(name, source), for example folder:photos or pocket:digits",
            )
        given = self.settings
        options = SourceOptions(self.base, self._requested, given.image, given.group, given.split)
        source = source_of(self.source, options)
        return RenamedClasses(source, self._renamed) if self._renamed else source

    def renamed(self, names: Mapping[str, str | None], tasks: Sequence[Task]) -> Domain:
        """Return a domain with the same images and with renamed or removed classes.

        Args:
            names: The new name of each class that changes; None removes it.
            tasks: The tasks with the new classes.
        """
        domain = self._unread()
        domain._renamed, domain._requested = dict(names), tuple(tasks)
        return domain

    def keeping(self, known: KnownSplits) -> Domain:
        """Return a domain with the same images, of which known ones keep their split.

        Args:
            known: Splits that were assigned by hash before, as `index.assigned` of a domain. Where
                the source names the split of an image, that split counts.
        """
        if not len(known.units):
            return self
        domain = self._unread()
        domain._known = known
        return domain

    @property
    def given(self) -> frozenset[str]:
        """The keys that were set explicitly."""
        return frozenset(self.settings.model_fields_set)

    def with_defaults(self, defaults: Mapping[str, Any]) -> Domain:
        """Return the domain with these values of keys that were not set explicitly."""
        missing = {key: value for key, value in defaults.items() if key not in self.given}
        if not missing:
            return self
        domain = self._unread()
        domain.settings = DomainSettings.of(
            {**self.settings.given(), **missing}, f"domains.{self.name}"
        )
        if "tasks" in missing:
            domain._requested = domain.settings.tasks
        return domain

    def _unread(self) -> Domain:
        """Return a copy that reads its source again."""
        domain = copy(self)
        for name, attribute in vars(Domain).items():
            if isinstance(attribute, cached_property):
                domain.__dict__.pop(name, None)
        return domain

    def sampled(self, seed: int = 0) -> Domain:
        """Return this domain with a few of its images, which stand for all of them.

        They are decoded in memory, and nothing is written: for estimates of time and size.
        """
        domain = copy(self)
        for name in ("decoded", "pixels", "splits"):
            domain.__dict__.pop(name, None)
        domain.sample = decode_sample(self.opened, self.listing, self.shape, self.name, seed)
        warnings = [*self.listing.warnings, *domain.sample.warnings]
        domain.__dict__["index"] = replace(self.listing, warnings=warnings)
        return domain

    @property
    def unlabelled(self) -> bool:
        """Whether its source has no labels by design."""
        return self.source is not None and bool(getattr(self.opened, "unlabelled", False))

    @cached_property
    def listing(self) -> Index:
        """Its images by name, duplicates included, without decoding any."""
        group = self.settings.group
        index = read_index(self.opened, self.name, self._requested, group, self._known)
        users = user_source(self.settings.source)
        return replace(index, code=f"{users} {index.code}") if users else index

    @cached_property
    def index(self) -> Index:
        """Its images by name, with splits and labels.

        To find duplicates, all images are decoded; with the default settings none is.
        """
        given = self.settings
        if given.duplicates == "keep" and given.conflicts == "keep":
            return self.listing
        return resolve(
            self.listing,
            find_duplicates(self.listing, self.decoded.records),
            self.name,
            together=given.duplicates != "keep",
            drop=given.duplicates == "drop",
            drop_conflicts=given.conflicts == "drop",
            known=self._known,
            unlabelled=self.unlabelled,
        )

    @property
    def assigned(self) -> KnownSplits:
        """All splits that were assigned by hash, also those of images that are gone now."""
        return self.index.assigned.merged(self._known)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Its tasks with their classes."""
        if self.source is not None:
            return self.listing.tasks
        if self._requested is None:
            raise BadInput(
                f"domain {self.name} has neither a source nor tasks",
                try_="Domain(name, tasks=[Task(…)])",
            )
        return self._requested

    @cached_property
    def shape(self) -> Pixels:
        """The pixel pipeline without the normalization, without decoding any image."""
        given = self.settings
        size = given.size
        if size is None and self.source is not None:
            size = getattr(self.opened, "size", None)  # embedded domains have a fixed size
        size = SIZE if size is None else size
        size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        return Pixels(size, given.fit, given.margin, given.fill)

    @cached_property
    def decoded(self) -> Decoded:
        """All of its images, decoded once, and cached if there is room."""
        if self.sample is not None:
            return self.sample.decoded
        text = self.source if isinstance(self.source, str) else self.settings.source
        return decode_all(
            self.opened,
            self.listing,
            self.shape,
            name=self.name,
            origin=Origin.of(text, self.base),
            home=Path(self.cache) if self.cache else None,
            keep=self.cache is not False,
        )

    def cache_plan(self) -> Plan | None:
        """Return the folder of the cache for its images; None if their pixels are not cached."""
        if self.cache is False:
            return None
        home = Path(self.cache) if self.cache else None
        return plan_cache(self.listing, self.shape, name=self.name, home=home)

    def expect(self, normalization: Stats | None) -> None:
        """Normalize as the weights of a model expect, if `normalize` is "auto".

        A model calls this for each domain that it is given, so a domain has the normalization of
        the model that it was given to last.

        Args:
            normalization: Mean and std; None: the weights expect none in particular.
        """
        if self.settings.normalize == "auto" and normalization != self._expected:
            self._expected = normalization
            for name in ("pixels", "splits"):
                self.__dict__.pop(name, None)

    @cached_property
    def pixels(self) -> Pixels:
        """The pixel pipeline, normalization included."""
        normalize = self.settings.normalize
        if normalize == "auto":
            normalize = self._expected or "dataset"
        if normalize == "imagenet" or (normalize == "dataset" and self.source is None):
            mean, std = IMAGENET
        elif normalize == "dataset":
            mean, std = self.stats("train")
        else:
            mean, std = normalize
        return replace(self.shape, mean=mean, std=std)

    @cached_property
    def augmentation(self) -> Augment:
        """The augmentation of its training images: the default with the user's changes."""
        given = self.settings
        flip = given.flip if given.flip is not None else getattr(self.opened, "flip", False)
        return Augment.usual(self.shape, flip, given.augment)

    @property
    def train(self) -> Split:
        """The images to train on."""
        return self.splits["train"]

    @property
    def val(self) -> Split:
        """The images for validation."""
        return self.splits["val"]

    @property
    def test(self) -> Split:
        """The images for the final evaluation."""
        return self.splits["test"]

    @cached_property
    def splits(self) -> dict[str, Split]:
        """Its three splits without unreadable images; raises BadInput if these are too many."""
        self.check()
        return {
            name: Split(name, self.good(name), self.index, self.decoded.frames, self.pixels)
            for name in SPLITS
        }

    def good(self, split: str) -> NDArray[np.int64]:
        """Return the index rows of a split's readable images."""
        rows = self.index.rows(split)
        good: NDArray[np.int64] = rows[self.decoded.records["status"][rows] == GOOD]
        return good

    def bad(self, split: str) -> NDArray[np.int64]:
        """Return the index rows of a split's unreadable images."""
        return np.setdiff1d(self.index.rows(split), self.good(split))

    def stats(self, split: str) -> Stats:
        """Return mean and std by channel of a split's stored images, of values from 0 to 1."""
        records = self.decoded.records[self.good(split)]
        if len(records) == 0:
            raise BadInput(
                f"{self.name}: none of the {split} images can be read", try_=self._inspect()
            )
        mean = records["mean"].astype(np.float64).mean(0)
        square = records["square"].astype(np.float64).mean(0)
        std = np.sqrt(np.maximum(square - mean**2, 1e-4))  # at least 0.01, for a blank domain
        return _triple(mean.round(6)), _triple(std.round(6))

    def check_classes(self) -> None:
        """Raise BadInput if a task has a single class; no image is decoded for this."""
        if self.unlabelled:
            return
        tasks = [t for t in self.tasks if t.kind in ONE_OF_SEVERAL and len(t.classes) == 1]
        notes = getattr(self.opened, "notes", []) if tasks and self.source is not None else []
        also = f" ({'; '.join(notes)})" if notes else ""  # such as ignored folders
        errors = [
            BadInput(
                f"{self.name}: task {task.name} has one class, so there is nothing to learn{also}",
                got=task.classes[0],
                try_="a folder or label of a second class; or unlabelled:PATH, for distillation",
            )
            for task in tasks
        ]
        if errors:
            raise BadInput.several(errors)

    def check(self) -> None:
        """Raise BadInput if too many images cannot be read, or a class has none left to train."""
        errors: list[BadInput] = []
        allow = f"--set domains.{self.name}.allow_bad=true, or allow_bad = true in the recipe"
        allow = allow if isinstance(self.source, str) else "allow_bad=True"
        for split in SPLITS:
            bad, rows = self.bad(split), self.index.rows(split)
            limit = max(0.01 * len(rows), 3)
            if len(bad) > limit and not self.settings.allow_bad:
                first = int(bad[0])
                errors.append(
                    BadInput(
                        f"{self.name}: {len(bad)} of {len(rows)} {split} images cannot be read, "
                        "more than max(1 %, 3)",
                        got=f"{self.index.keys[first]}: {self.decoded.reasons.get(first, '')}",
                        try_=f"{self._inspect()} lists them; repair or remove them, or {allow}",
                    )
                )
        for task in () if self.unlabelled else self.tasks:
            if task.classes and task.name in self.index.labels:
                codes = self.index.split.copy()
                codes[self.decoded.records["status"] != GOOD] = LEFT_OUT
                name = f"{self.name}: of the readable images"
                check_classes(task, self.index.labels[task.name], codes, name, errors, [])
        if errors:
            raise BadInput.several(errors)

    def warnings(self, evaluated: Collection[str] = SPLITS[1:]) -> list[str]:
        """Return messages on its images, on classes with few images and on splits that overlap."""
        codes = self.index.split.copy()
        codes[self.decoded.records["status"] != GOOD] = LEFT_OUT
        few = [
            few_images(task, self.index.labels[task.name], codes, evaluated)
            for task in self.tasks
            if task.kind in ("classify", "multilabel")
        ]
        shared = shared_with_train(self.index, self.decoded.records, codes != LEFT_OUT)
        return [*self.index.warnings, *shared, *(line for line in few if line)]

    def notes(self, evaluated: Collection[str] = SPLITS[1:]) -> list[str]:
        """Return messages for the user about its images; `evaluated`: the splits so used."""
        notes = [printable(f"{self.name}: {line}") for line in self.warnings(evaluated)]
        notes += [
            f"{self.name}: {split} has no image"
            for split in evaluated
            if not len(self.splits[split])
        ]
        for split in SPLITS:
            if count := len(bad := self.bad(split)):
                first = int(bad[0])
                reason = self.decoded.reasons.get(first, "")
                notes.append(
                    printable(
                        f"{self.name}: {count} of {len(self.index.rows(split)):,} {split} images "
                        f"cannot be read and are skipped; first: {self.index.keys[first]}: {reason}"
                    )
                )
        return notes

    def _inspect(self) -> str:
        command = f"onetrunk data {self.source}"
        return command if isinstance(self.source, str) else "ot.inspect(domain).unreadable"


def _triple(vector: Sequence[float]) -> tuple[float, float, float]:
    r, g, b = (float(v) for v in vector)
    return r, g, b
