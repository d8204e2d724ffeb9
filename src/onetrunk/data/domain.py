"""A domain: a named source of images with its own splits, labels, resolution and normalization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.augment import Augment
from onetrunk.data.cache import Decoded, decode_all
from onetrunk.data.index import Index, check_classes, read_index
from onetrunk.data.pixels import Fit, Pixels
from onetrunk.data.renamed import RenamedClasses
from onetrunk.data.sources import Source, SourceOptions, open_source
from onetrunk.data.split import Split
from onetrunk.data.splitting import SPLITS
from onetrunk.data.stored_images import GOOD
from onetrunk.data.task import Task, TasksLike, check_name, read_tasks
from onetrunk.errors import BadInput

SIZE = 64  # pixels, where neither the user nor the source says one
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Stats = tuple[tuple[float, float, float], tuple[float, float, float]]


class Domain:
    """What the user says of one domain; nothing is read before it is asked for.

    `source` is `"prefix:rest"`, `"package.module:thing"` or an object that does what
    `data.sources.Source` says. Without one the domain has no images: its tasks (with classes) and
    its size are all that a model needs of it.

    `normalize`: "dataset" (mean and std of its training images), "imagenet", or a pair
    (mean, std). `cache`: a folder, None for the usual one, False to store no pixels. `base`: where
    relative paths start.
    """

    def __init__(
        self,
        name: str,
        source: str | Source | None = None,
        tasks: TasksLike | None = None,
        *,
        size: int | tuple[int, int] | None = None,
        fit: Fit = "squash",
        margin: int = 0,
        fill: int = 0,
        flip: bool | None = None,
        augment: Augment | Mapping[str, Any] | None = None,
        normalize: Literal["dataset", "imagenet"] | Stats = "dataset",
        image: str | None = None,
        group: str | None = None,
        split: str | None = None,
        weight: float = 1.0,
        batch: int | None = None,
        allow_bad: bool = False,
        base: str | Path = ".",
        cache: str | Path | Literal[False] | None = None,
    ) -> None:
        self.name = check_name(name, "domain")
        if not 0 < weight < float("inf"):
            raise BadInput(f"domain {name}: weight is a number above 0", got=weight)
        if batch is not None and batch < 1:
            raise BadInput(f"domain {name}: batch is at least 1", got=batch)
        self.source = source
        self.size = size
        self.fit = fit
        self.margin = margin
        self.fill = fill
        self.flip = flip
        self.augment = augment
        self.normalize = normalize
        self.image = image
        self.group = group
        self.split = split
        self.weight = weight
        self.batch = batch
        self.allow_bad = allow_bad
        self.base = Path(base)
        self.cache = cache
        self._tasks = None if tasks is None else read_tasks(tasks)
        self._names: Mapping[str, str | None] = {}

    def __repr__(self) -> str:
        return f"Domain({self.name!r}, {self.source!r})"

    @property
    def asked(self) -> tuple[Task, ...] | None:
        """The tasks as the user named them; None where they are those of the source."""
        return self._tasks

    @cached_property
    def opened(self) -> Source:
        """The source itself."""
        if self.source is None:
            raise BadInput(
                f"domain {self.name} has no source, so it has no images",
                try_="Domain(name, source), for example folder:photos or pocket:digits",
            )
        if not isinstance(self.source, str):
            found = self.source
        else:
            asked = SourceOptions(self.base, self._tasks, self.image, self.group, self.split)
            found = open_source(self.source, asked)
        return RenamedClasses(found, self._names) if self._names else found

    def called(self, names: Mapping[str, str | None], tasks: Sequence[Task]) -> Domain:
        """The same images where classes have other names, or are gone (None), as in `tasks`."""
        made = copy(self)
        for name, what in vars(Domain).items():
            if isinstance(what, cached_property):
                made.__dict__.pop(name, None)
        made._names, made._tasks = dict(names), tuple(tasks)
        return made

    @property
    def unlabelled(self) -> bool:
        """Whether its images have no labels at all, and are not meant to."""
        return self.source is not None and bool(getattr(self.opened, "unlabelled", False))

    @cached_property
    def index(self) -> Index:
        """Its images by name, with splits and labels; nothing is decoded for it."""
        return read_index(self.opened, self.name, self._tasks, self.group)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Its tasks with their classes."""
        if self.source is not None:
            return self.index.tasks
        if self._tasks is None:
            raise BadInput(f"domain {self.name}: a domain without a source names its tasks")
        return self._tasks

    @cached_property
    def shape(self) -> Pixels:
        """The pixels' contract but for the normalization: nothing is decoded for it."""
        size = self.size
        if size is None and self.source is not None:
            size = getattr(self.opened, "size", None)  # embedded domains have a size of their own
        size = SIZE if size is None else size
        size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        return Pixels(size, self.fit, self.margin, self.fill)

    @cached_property
    def decoded(self) -> Decoded:
        """All its images looked at once, and in the cache where there is room."""
        home = Path(self.cache) if self.cache else None
        return decode_all(
            self.opened,
            self.index,
            self.shape,
            name=self.name,
            home=home,
            keep=self.cache is not False,
        )

    @cached_property
    def pixels(self) -> Pixels:
        """What it does to an image, normalization included."""
        if self.normalize == "imagenet" or (self.normalize == "dataset" and self.source is None):
            mean, std = IMAGENET
        elif self.normalize == "dataset":
            mean, std = self.stats("train")
        elif isinstance(self.normalize, str) or np.shape(self.normalize) != (2, 3):
            raise BadInput(
                f"domain {self.name}: normalize is a word, or three means and three deviations",
                got=self.normalize,
                available=("dataset", "imagenet"),
            )
        else:
            mean, std = (_triple(vector) for vector in self.normalize)
        return replace(self.shape, mean=mean, std=std)

    @cached_property
    def augmentation(self) -> Augment:
        """How its training images are varied: what the user said, on top of what suits most."""
        if isinstance(self.augment, Augment):
            return self.augment
        flip = self.flip if self.flip is not None else getattr(self.opened, "flip", False)
        return Augment.usual(self.shape, flip, self.augment or {})

    @property
    def train(self) -> Split:
        """The images that are learned from."""
        return self.splits["train"]

    @property
    def val(self) -> Split:
        """The images that choices are made on."""
        return self.splits["val"]

    @property
    def test(self) -> Split:
        """The images that the result is evaluated on, and nothing else."""
        return self.splits["test"]

    @cached_property
    def splits(self) -> dict[str, Split]:
        """Its three splits, without unreadable images; too many of those are an error."""
        self.check()
        return {
            name: Split(name, self.good(name), self.index, self.decoded.frames, self.pixels)
            for name in SPLITS
        }

    def good(self, split: str) -> NDArray[np.int64]:
        """Places in the index of a split's readable images."""
        rows = self.index.rows(split)
        kept: NDArray[np.int64] = rows[self.decoded.records["status"][rows] == GOOD]
        return kept

    def bad(self, split: str) -> NDArray[np.int64]:
        """Places in the index of a split's unreadable images."""
        return np.setdiff1d(self.index.rows(split), self.good(split))

    def stats(self, split: str) -> Stats:
        """Mean and standard deviation of a split's stored images by channel, of values in 0…1."""
        seen = self.decoded.records[self.good(split)]
        if len(seen) == 0:
            raise BadInput(
                f"{self.name}: none of the {split} images can be read", try_=self._look()
            )
        mean = seen["mean"].astype(np.float64).mean(0)
        square = seen["square"].astype(np.float64).mean(0)
        std = np.sqrt(np.maximum(square - mean**2, 1e-4))  # a blank domain is not blown up
        return _triple(mean.round(6)), _triple(std.round(6))

    def check(self) -> None:
        """Refuse a domain with too many unreadable images, or with a class that they removed."""
        errors: list[BadInput] = []
        for split in SPLITS:
            bad, rows = self.bad(split), self.index.rows(split)
            limit = max(0.01 * len(rows), 3)
            if len(bad) > limit and not self.allow_bad:
                first = int(bad[0])
                reason = self.decoded.reasons.get(first, "")
                errors.append(
                    BadInput(
                        f"{self.name}: {len(bad)} of {len(rows)} {split} images cannot be read, "
                        "more than max(1 %, 3)",
                        got=f"{self.index.keys[first]}: {reason}",
                        try_=f"{self._look()} lists them; repair or remove them, or set "
                        "allow_bad = true",
                    )
                )
        for task in () if self.unlabelled else self.tasks:
            if task.classes and task.name in self.index.labels:
                codes = self.index.split.copy()
                codes[self.decoded.records["status"] != GOOD] = len(SPLITS)
                name = f"{self.name}: of the readable images"
                check_classes(task, self.index.labels[task.name], codes, name, errors, [])
        if errors:
            raise BadInput.several(errors)

    def _look(self) -> str:
        return f"onetrunk data {self.source}" if isinstance(self.source, str) else "onetrunk data"


def _triple(vector: Sequence[float]) -> tuple[float, float, float]:
    r, g, b = (float(v) for v in vector)
    return r, g, b


def check_domains(domains: Sequence[Domain]) -> None:
    """Check all domains, and that their names differ; raise one error with all problems."""
    names = [domain.name for domain in domains]
    errors = [
        BadInput(f"two domains have the name {name}", try_="give them different names")
        for name in sorted({n for n in names if names.count(n) > 1})
    ]
    for domain in domains:
        try:
            domain.check()
        except BadInput as error:
            errors.append(error)
    if errors:
        raise BadInput.several(errors)
