"""Outcomes: what each image of a split contributes to the headlines, stored to compare runs.

A headline is a function of sums over images: error = 100·Σsum/Σcount, nrmse = √(Σsum/Σcount) with
sums in units of the targets' variance (mean over outputs), mean IoU a function of Σareas. With the
contribution of every image on disk, an interval, or the difference of two runs on the same images,
needs neither the models nor the images. Mean average precision is not such a function, so
multilabel tasks have no outcomes.

The file is a safetensors file: `DOMAIN/TASK/sum` (n) or (n, outputs) and `DOMAIN/TASK/count` (n) in
float64; for segmentation `DOMAIN/TASK/areas` (n, 3, classes) in int32: pixels right, predicted and
labelled. An image without a label has count 0. The header holds the tasks' kinds, and digests of
the image names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from onetrunk.data.split import Split
from onetrunk.data.task import check_name
from onetrunk.errors import BadInput, shorten
from onetrunk.eval.metrics import SCORES
from onetrunk.eval.metrics.scores import F64
from onetrunk.store.atomic import write_atomic

FORMAT = 1
HEADER = "onetrunk"  # the key of the JSON document in the file's metadata
DIMENSIONS = {"count": (1,), "sum": (1, 2), "areas": (3,)}  # of the arrays, by name
Key = tuple[str, str]  # domain, task
# raised by the readers of a damaged file
INVALID = (SafetensorError, LookupError, ValueError, TypeError, RecursionError, AttributeError)


@dataclass(frozen=True)
class TaskOutcomes:
    """One task's outcomes: arrays with one row per image, in the order of the split."""

    kind: str
    arrays: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def images(self) -> int:
        """The number of images that count."""
        counts = self.arrays["areas"][:, 2].sum(1) if self._has_areas else self.arrays["count"]
        return int((counts > 0).sum())

    def columns(self) -> F64:
        """Return the numbers of each image, (n, numbers), whose sums determine the headline."""
        if self._has_areas:
            return self.arrays["areas"].reshape(len(self), -1).astype(np.float64)
        sums = self.arrays["sum"].reshape(len(self), -1)
        return np.concatenate([sums, self.arrays["count"][:, None]], 1)

    def headlines(self, sums_RK: F64) -> F64:
        """Return the headline of each row of sums of `columns`; NaN where no image counts."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return SCORES[self.kind].headlines(sums_RK)

    def headline(self) -> float:
        """Return the headline over all images."""
        return float(self.headlines(self.columns().sum(0)[None])[0])

    @property
    def _has_areas(self) -> bool:
        return "areas" in self.arrays


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of every task on one split.

    `image_digests`: a digest of the names of each domain's images, in order.
    """

    split: str
    tasks: Mapping[Key, TaskOutcomes]
    image_digests: Mapping[str, str]

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains' names, in order."""
        return tuple(dict.fromkeys(domain for domain, _ in self.tasks))

    def of(self, domain: str) -> Iterator[tuple[str, TaskOutcomes]]:
        """Iterate over a domain's tasks: name and outcomes."""
        return ((task, one) for (name, task), one in self.tasks.items() if name == domain)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the outcomes to a file and return its path."""
        arrays = {
            f"{domain}/{task}/{name}": np.ascontiguousarray(array)
            for (domain, task), one in self.tasks.items()
            for name, array in one.arrays.items()
        }
        document = {
            "format": FORMAT,
            "split": self.split,
            "kinds": {f"{domain}/{task}": one.kind for (domain, task), one in self.tasks.items()},
            "names": dict(self.image_digests),
        }
        write_atomic(Path(path), save(arrays, {HEADER: json.dumps(document)}))
        return Path(path)

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Outcomes:
        """Read and check the outcomes in a file."""
        name = Path(path).name
        if not Path(path).is_file():
            raise BadInput("expected a file of outcomes", got=name)
        try:
            with safe_open(path, "numpy") as file:
                document = json.loads((file.metadata() or {})[HEADER])
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return _read(document, arrays)
        except BadInput as error:
            raise error.within(name) from None
        except OSError as error:
            raise BadInput(
                f"cannot read {name}", got=error.strerror or type(error).__name__
            ) from None
        except INVALID as error:
            raise BadInput(f"{name} is not a file of outcomes", got=f"{error!r}"[:100]) from None


def digest_names(split: Split) -> str:
    """Return a digest of the names of a split's images, in order."""
    names = hashlib.sha256()
    for i in range(len(split)):
        names.update(split.key(i).encode("utf-8", "surrogateescape") + b"\0")
    return names.hexdigest()


def _read(document: Any, arrays: dict[str, NDArray[Any]]) -> Outcomes:
    """Return the outcomes that `save` wrote, after checking kinds, shapes and numbers."""
    if document["format"] != FORMAT:
        raise BadInput(
            f"expected outcomes of format {FORMAT}",
            got=document["format"],
            try_="pip install --upgrade onetrunk",
        )
    if not isinstance(document["split"], str):
        raise TypeError("split is not a string")
    with_outcomes = [kind for kind, scores in SCORES.items() if scores.outcome_arrays]
    tasks: dict[Key, TaskOutcomes] = {}
    sizes: dict[str, int] = {}
    for key, kind in document["kinds"].items():
        domain, task = key.split("/")
        check_name(domain, "domain")
        check_name(task, "task")
        if kind not in with_outcomes:
            raise BadInput(
                f"{key}: expected a kind that has outcomes", got=kind, available=with_outcomes
            )
        names = SCORES[kind].outcome_arrays
        one = TaskOutcomes(kind, {name: arrays.pop(f"{key}/{name}") for name in names})
        _check_arrays(key, one)
        if sizes.setdefault(domain, len(one)) != len(one):
            raise BadInput(
                f"{key}: expected {sizes[domain]} images, as in the domain's other tasks",
                got=len(one),
            )
        if not isinstance(document["names"][domain], str):
            raise TypeError("a digest is not a string")
        tasks[domain, task] = one
    if arrays:
        raise BadInput("arrays of unknown tasks", got=shorten(sorted(arrays), 4))
    return Outcomes(document["split"], tasks, document["names"])


def _check_arrays(key: str, one: TaskOutcomes) -> None:
    for name, array in one.arrays.items():
        dtype = np.int32 if name == "areas" else np.float64
        if array.dtype != dtype or array.ndim not in DIMENSIONS[name] or len(array) != len(one):
            raise BadInput(
                f"{key}/{name}: expected another shape or type", got=f"{array.dtype}{array.shape}"
            )
        if name == "areas" and array.shape[1] != 3:
            raise BadInput(f"{key}/{name}: expected 3 areas per class", got=array.shape[1])
        if not np.isfinite(array).all() or (array < 0).any():
            raise BadInput(f"{key}/{name}: expected finite numbers of at least 0", got="others")
