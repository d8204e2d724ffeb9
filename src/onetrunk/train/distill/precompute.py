"""Precomputed features: a teacher looks once at V seeded views of every training image.

The student then sees these views over and over, view v in its passes v, v + V, …, and what the
teacher said of them comes from a file: a step costs what it costs without a teacher. The fewer
views, the less variety.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onetrunk.config import Distill
from onetrunk.data.domain import Domain
from onetrunk.data.loader import make_batch
from onetrunk.data.sampling import Draw, Fixed, views_seed
from onetrunk.errors import BadInput, Failed
from onetrunk.nn.feature_points import Inside
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track, say
from onetrunk.store.run_folder import RunFolder
from onetrunk.store.tensors import RowSpec, RowsWriter
from onetrunk.train.device import Precision, choose_device, deterministic
from onetrunk.train.distill.find_teachers import Given, find_teachers
from onetrunk.train.distill.pairs import aim, pairs_of, usual
from onetrunk.train.distill.stored_teachers import FEATURES, PREDICTIONS, About, Stored, fixed_of
from onetrunk.train.distill.teachers import Teacher, widths
from onetrunk.train.interrupt import Stop, stopped

FOLDER = "teachers"
BATCH = 64  # images at a look
EVERY = 10.0  # seconds of work that a kill costs
SAID = 2**30  # bytes of a file that are worth a line


def precompute(
    teacher: Given,
    domain: Domain,
    file: str | Path,
    *,
    views: int = 4,
    seed: int = 0,
    at: Sequence[str] = (),
    logits: bool = True,
    device: str | torch.device | None = None,
) -> Path:
    """Write what a teacher says of `views` views of each training image, for `features:FILE`.

    `teacher`: as `ot.train(…, teachers=…)` takes it. `at`: its points, else those that the domain's
    tasks read. A run takes the file where its images, pixels and augmentation are the same; the
    views come from the file's own seed. A call that was stopped goes on.
    """
    if views < 1:
        raise BadInput("expected at least one view", got=views)
    found = find_teachers({domain.name: teacher}, [domain], Path(), logits)[domain.name]
    if len(found) != 1:
        raise BadInput("a file holds one teacher", got=[one.name for one in found])
    (one,) = found
    aims = [aim(point, one.widths) for point in usual(domain, one)]
    points = at or tuple(dict.fromkeys(point for point in aims if point is not None))
    for point in points:
        if point not in one.widths:
            raise BadInput(f"teacher {one.name} has no such point", got=point, available=one.widths)
    place = choose_device(device)
    one.to(place, True)
    with deterministic(True, place):
        fixed = Fixed(views, views_seed(seed, domain.name))
        write(Path(file), one, domain, fixed, points, Precision.of("auto", place))
    return Path(file)


def look_once(
    models: Mapping[str, Universal],
    domains: Sequence[Domain],
    teachers: Mapping[str, Sequence[Teacher]],
    distill: Distill,
    run: RunFolder,
    seed: int,
    precision: Precision,
    stop: Stop,
) -> dict[str, list[Teacher]]:
    """Every teacher that is a network looks at its views, into the run's folder, and is stored."""
    of = {name: model for model in models.values() for name in model.domains}
    found: dict[str, list[Teacher]] = {}
    for domain in domains:
        mine = teachers.get(domain.name, ())
        fixed = fixed_of(mine) or Fixed(distill.views, views_seed(seed, domain.name))
        for number, teacher in enumerate(mine):
            if not isinstance(teacher, Stored):
                inside = widths(of[domain.name], domain.name)
                points = [t for _, t in pairs_of(domain, teacher, distill, inside)]
                path = run.path / FOLDER / f"{domain.name}-{number}.safetensors"
                teacher.to(precision.device, True)
                with run.writing(f"the features of {domain.name}"):
                    write(path, teacher, domain, fixed, points, precision, (stop, run.path))
                teacher = Stored(path, domain, teacher.tasks, distill.logits)
            found.setdefault(domain.name, []).append(teacher)
    return found


def write(
    path: Path,
    teacher: Teacher,
    domain: Domain,
    fixed: Fixed,
    points: Sequence[str],
    precision: Precision,
    asked: tuple[Stop, Path] | None = None,
) -> None:
    """The file of one teacher's views; one of the same views that is there stays.

    `asked`: who may ask to stop, and the run that goes on then.
    """
    count = len(domain.train)
    about = About.of(domain, teacher.name, teacher.predictions, fixed)
    if path.exists():
        _same(path, about, domain, _names(points, teacher.predictions))
        return
    total = fixed.views * count
    rows = np.arange(total)

    def looked(part: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        draw = Draw(domain.name, part % count, part // count, fixed.seed)
        batch = make_batch(draw, domain.train, domain.augmentation, domain.tasks)
        with precision.autocast():
            seen = teacher.look(batch.images.to(precision.device), batch, points)
        return _arrays(seen, teacher, domain)

    first = looked(rows[: min(2, total)])
    forms: dict[str, RowSpec] = {
        name: ("F32" if array.dtype == np.float32 else "F16", array.shape[1:])
        for name, array in first.items()
    }
    file = RowsWriter(path, forms, total, about.text())
    _room(path, file)
    what = f"{teacher.name} looks at {domain.name}"
    with file, Track(what, total) as track:
        track(file.done)
        saved = time.monotonic()
        while file.done < total:
            part = rows[file.done : file.done + BATCH]
            file.write(looked(part))
            track(len(part))
            stop = asked is not None and asked[0].requested
            if stop or time.monotonic() - saved > EVERY:
                file.keep()
                saved = time.monotonic()
            if asked is not None and stop:
                raise stopped(f"at view {file.done:,} of {domain.name}", asked[1])
        file.finish()


def _arrays(seen: Inside, teacher: Teacher, domain: Domain) -> dict[str, NDArray[Any]]:
    """In half precision; predicted numbers, whose unit may be anything, in single."""
    kinds = {task.name: task.kind for task in domain.tasks}
    found: dict[str, NDArray[Any]] = {}
    for prefix, tensors in ((FEATURES, seen.features), (PREDICTIONS, seen.predictions)):
        for name, tensor in tensors.items():
            single = prefix == PREDICTIONS and kinds[name] == "regress"
            array = tensor.to("cpu", torch.float32 if single else torch.float16).numpy()
            if not np.isfinite(array).all():
                raise Failed(
                    f"teacher {teacher.name}: {domain.name}: {prefix}{name} is not finite in half "
                    "precision; try: distill.views = 0"
                )
            found[prefix + name] = array
    return found


def _names(points: Sequence[str], predictions: Sequence[str]) -> list[str]:
    """Of the arrays of a file."""
    return [*(FEATURES + point for point in points), *(PREDICTIONS + task for task in predictions)]


def _same(path: Path, about: About, domain: Domain, names: Sequence[str]) -> None:
    """This file is of these very views; any other is refused, not overwritten."""
    there = Stored(path, domain, [task.name for task in domain.tasks])
    if there.about != about or {*there.arrays} != {*names}:
        raise BadInput(
            f"{path.name} is there, and holds other views", try_="remove it, or another name"
        )


def _room(path: Path, file: RowsWriter) -> None:
    """A disk that is too small is found before the teacher looks."""
    place = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(place).free
    if file.bytes > free:
        raise Failed(
            f"{path.name} takes {file.bytes / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free; "
            "try: fewer distill.views, other points in distill.feature_layers, or distill.views = 0"
        )
    if file.bytes > SAID and not file.done:
        say(f"{path.name} takes {file.bytes / 1e9:,.1f} GB")
