"""Outcomes: what each image of a split adds to the headline, kept so that runs can be compared.

A headline is a function of sums over images: error = 100·Σsum/Σcount, nrmse = √(Σsum/Σcount) with
sums in units of the targets' variance (mean over outputs), mean IoU a function of Σareas. With the
parts of every image on disk, an interval, or the difference of two runs on the same images, needs
neither model nor images. A mean average precision is no such function: multilabel tasks have none.

The file is a safetensors file: `DOMAIN/TASK/sum` (n) or (n, outputs) and `DOMAIN/TASK/count` (n) in
float64, of segmentation `DOMAIN/TASK/areas` (n, 3, classes) int32: pixels right, predicted and
labelled. An image without a label counts 0. The header names kinds, and digests of images' names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from onetrunk.data.split import Split
from onetrunk.data.task import KINDS, check_name
from onetrunk.errors import BadInput
from onetrunk.eval.accumulator import F64
from onetrunk.eval.pixel_metrics import mean_iou
from onetrunk.store.atomic import write_atomic

FORMAT = 1
KEY = "onetrunk"  # the header's entry
Key = tuple[str, str]  # domain, task
PERCENT = frozenset({"classify", "embed", "segment"})  # kinds whose headline is a share, in percent


@dataclass(frozen=True)
class Part:
    """One task's parts, image by image in the order of the split."""

    kind: str
    arrays: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def images(self) -> int:
        """How many of the images count."""
        counts = (
            self.arrays["areas"][:, 2].sum(1) if self.kind == "segment" else self.arrays["count"]
        )
        return int((counts > 0).sum())

    def columns(self) -> F64:
        """Every number of each image, (n, numbers): what sums over images are formed of."""
        if self.kind == "segment":
            return self.arrays["areas"].reshape(len(self), -1).astype(np.float64)
        sums = self.arrays["sum"].reshape(len(self), -1)
        return np.concatenate([sums, self.arrays["count"][:, None]], 1)

    def headlines(self, sums_RK: F64) -> F64:
        """The headline of each row of sums of `columns`; NaN where nothing was counted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.kind == "segment":
                found = mean_iou(sums_RK.reshape(len(sums_RK), 3, -1))
            else:
                means = sums_RK[:, :-1] / sums_RK[:, -1:]
                found = (np.sqrt(means) if self.kind == "regress" else means).mean(1)
        return 100 * found if self.kind in PERCENT else found

    def headline(self) -> float:
        """The headline over all images."""
        return float(self.headlines(self.columns().sum(0)[None])[0])


@dataclass(frozen=True)
class Outcomes:
    """The parts of every task of a split; `names`: a digest of each domain's images, in order."""

    split: str
    parts: Mapping[Key, Part]
    names: Mapping[str, str]

    @property
    def domains(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(dict.fromkeys(domain for domain, _ in self.parts))

    def of(self, domain: str) -> Iterator[tuple[str, Part]]:
        """The domain's tasks with their parts."""
        return ((task, part) for (d, task), part in self.parts.items() if d == domain)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write them into one file."""
        arrays = {
            f"{domain}/{task}/{name}": np.ascontiguousarray(array)
            for (domain, task), part in self.parts.items()
            for name, array in part.arrays.items()
        }
        document = {
            "format": FORMAT,
            "split": self.split,
            "kinds": {f"{domain}/{task}": part.kind for (domain, task), part in self.parts.items()},
            "names": dict(self.names),
        }
        write_atomic(Path(path), save(arrays, {KEY: json.dumps(document)}))
        return Path(path)

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Outcomes:
        """The outcomes of a file, checked."""
        name = Path(path).name
        if not Path(path).is_file():
            raise BadInput("no such file of outcomes", got=name)
        try:
            with safe_open(path, "numpy") as file:
                document = json.loads((file.metadata() or {})[KEY])
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except OSError as error:
            raise BadInput(
                f"cannot read {name}", got=error.strerror or type(error).__name__
            ) from None
        except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise BadInput(f"{name} holds no outcomes", got=str(error)[:100]) from None
        try:
            return _read(document, arrays)
        except BadInput as error:
            raise BadInput(f"{name}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise BadInput(f"{name} holds no outcomes", got=f"{error!r}"[:100]) from None


def digest(split: Split) -> str:
    """Of the names of a split's images, in order: equal where two runs saw the same."""
    names = hashlib.sha256()
    for i in range(len(split)):
        names.update(split.key(i).encode("utf-8", "surrogateescape") + b"\0")
    return names.hexdigest()


def _read(document: Any, arrays: dict[str, NDArray[Any]]) -> Outcomes:
    """Kinds, shapes and numbers as `save` wrote them, or a BadInput."""
    if document["format"] != FORMAT:
        raise BadInput(
            f"this version reads outcomes of format {FORMAT}",
            got=document["format"],
            try_="pip install --upgrade onetrunk",
        )
    if not isinstance(document["split"], str):
        raise TypeError("a split is a name")
    parts: dict[Key, Part] = {}
    sizes: dict[str, int] = {}
    for place, kind in document["kinds"].items():
        domain, task = place.split("/")
        check_name(domain, "domain")
        check_name(task, "task")
        if kind not in KINDS or kind == "multilabel":
            raise BadInput(f"{place}: no kind that has outcomes", got=kind, available=KINDS)
        wanted = ("areas",) if kind == "segment" else ("sum", "count")
        part = Part(kind, {name: arrays.pop(f"{place}/{name}") for name in wanted})
        _check(place, part)
        if sizes.setdefault(domain, len(part)) != len(part):
            raise BadInput(f"{place}: as many images as the domain's other tasks", got=len(part))
        if not isinstance(document["names"][domain], str):
            raise TypeError("a digest is a text")
        parts[domain, task] = part
    if arrays:
        raise BadInput("arrays of no task", got=", ".join(sorted(arrays)[:4]))
    return Outcomes(document["split"], parts, document["names"])


def _check(place: str, part: Part) -> None:
    shapes: Mapping[str, Sequence[int]] = {"count": (1,), "sum": (1, 2), "areas": (3,)}
    for name, array in part.arrays.items():
        wanted = np.int32 if name == "areas" else np.float64
        if array.dtype != wanted or array.ndim not in shapes[name] or len(array) != len(part):
            raise BadInput(
                f"{place}/{name}: another shape or type", got=f"{array.dtype}{array.shape}"
            )
        if name == "areas" and array.shape[1] != 3:
            raise BadInput(f"{place}/{name}: three areas a class", got=array.shape[1])
        if not np.isfinite(array).all() or (array < 0).any():
            raise BadInput(f"{place}/{name}: finite numbers of at least 0", got="others")
