"""Precomputed features: a teacher's outputs for V seeded views of every training image.

They are computed once before training and stored in a file. The student then trains on these views,
in its passes v, v + V, … on view v, and a step costs as much as one without a teacher. Fewer views
mean less variety.
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
from onetrunk.nn.feature_points import Outputs
from onetrunk.nn.universal import Universal
from onetrunk.objects import Trust, trusting
from onetrunk.progress import Track, say
from onetrunk.store.run_folder import RunFolder
from onetrunk.store.tensors import RowSpec, RowsWriter
from onetrunk.train.device import Precision, choose_device, deterministic
from onetrunk.train.distill.find_teachers import Teachers, find_teachers
from onetrunk.train.distill.matching import default_points, match_features, teacher_point
from onetrunk.train.distill.stored_teachers import (
    FEATURES,
    PREDICTIONS,
    Header,
    StoredTeacher,
    fixed_of,
)
from onetrunk.train.distill.teachers import Teacher, feature_widths
from onetrunk.train.interrupt import Stop, stopped

FOLDER = "teachers"  # of a run
BATCH = 64
SAVE_SECONDS = 10.0  # at most this much work is lost when the process is killed
LARGE_FILE = 2**30  # bytes; the size of larger files is printed


def precompute(
    teacher: Teachers | Mapping[str, Teachers],
    domain: Domain,
    file: str | Path,
    *,
    views: int = 4,
    seed: int = 0,
    at: Sequence[str] = (),
    logits: bool = True,
    device: str | torch.device | None = None,
    trust: Trust = (),
) -> Path:
    """Write a teacher's outputs for `views` views of each training image, for `features:FILE`.

    An interrupted call is resumed by calling it again. A run can use the file if its training
    images, pixels and augmentation are the same; the seed of the views is in the file.

    Args:
        teacher: One teacher, as in `ot.train(…, teachers=…)`, or one by task.
        seed: The seed of the views' augmentation.
        at: The teacher's feature points; by default those that the domain's tasks need.
        logits: Whether predictions are stored as well as features.
        trust: Modules whose code the folder of a teacher may name.
    """
    if views < 1:
        raise BadInput("views: expected at least one", got=views)
    with trusting(trust):
        found = find_teachers({domain.name: teacher}, [domain], Path(), logits)[domain.name]
    if len(found) != 1:
        raise BadInput("expected one teacher for a file", got=", ".join(t.name for t in found))
    (one,) = found
    needed = [teacher_point(point, one.widths) for point in default_points(domain, one)]
    points = at or tuple(dict.fromkeys(point for point in needed if point is not None))
    for point in points:
        if point not in one.widths:
            raise BadInput(
                f"teacher {one.name}: no such feature point", got=point, available=one.widths
            )
    place = choose_device(device)
    one.to(place, True)
    with deterministic(True, place):
        fixed = Fixed(views, views_seed(seed, domain.name))
        write(Path(file), one, domain, fixed, points, Precision.of("auto", place))
    return Path(file)


def precompute_for_run(
    models: Mapping[str, Universal],
    domains: Sequence[Domain],
    teachers: Mapping[str, Sequence[Teacher]],
    distill: Distill,
    run: RunFolder,
    seed: int,
    precision: Precision,
    stop: Stop,
) -> dict[str, list[Teacher]]:
    """Write the outputs of all teachers into a run's folder, and return the stored teachers."""
    model_of = {name: model for model in models.values() for name in model.domains}
    stored: dict[str, list[Teacher]] = {}
    for domain in domains:
        assigned = teachers.get(domain.name, ())
        fixed = fixed_of(assigned) or Fixed(distill.views, views_seed(seed, domain.name))
        for number, teacher in enumerate(assigned):
            if not isinstance(teacher, StoredTeacher):
                widths = feature_widths(model_of[domain.name], domain.name)
                points = [point for _, point in match_features(domain, teacher, distill, widths)]
                path = run.path / FOLDER / f"{domain.name}-{number}.safetensors"
                teacher.to(precision.device, True)
                with run.writing(f"the features of {domain.name}"):
                    write(path, teacher, domain, fixed, points, precision, (stop, run.path))
                teacher = StoredTeacher(path, domain, teacher.tasks, distill.logits)
            stored.setdefault(domain.name, []).append(teacher)
    return stored


def write(
    path: Path,
    teacher: Teacher,
    domain: Domain,
    fixed: Fixed,
    points: Sequence[str],
    precision: Precision,
    stop: tuple[Stop, Path] | None = None,
) -> None:
    """Write a teacher's outputs for the views of a domain; an existing file of them is kept.

    Args:
        stop: The request to stop, and the folder of the run.
    """
    count = len(domain.train)
    header = Header.of(domain, teacher.name, teacher.predictions, fixed)
    if path.exists():
        names = {*(FEATURES + p for p in points), *(PREDICTIONS + t for t in teacher.predictions)}
        existing = StoredTeacher(path, domain, [task.name for task in domain.tasks])
        if existing.header != header or {*existing.arrays} != names:
            raise BadInput(
                f"{path.name} already exists with the outputs of other views or another teacher",
                try_="remove it, or choose another name",
            )
        return
    total = fixed.views * count
    rows = np.arange(total)

    def outputs_of(part: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        draw = Draw(domain.name, part % count, part // count, fixed.seed)
        batch = make_batch(draw, domain.train, domain.augmentation, domain.tasks)
        with precision.autocast():
            outputs = teacher.forward(batch.images.to(precision.device), batch, points)
        return _arrays(outputs, teacher, domain)

    first = outputs_of(rows[: min(2, total)])
    forms: dict[str, RowSpec] = {
        name: ("F32" if array.dtype == np.float32 else "F16", array.shape[1:])
        for name, array in first.items()
    }
    file = RowsWriter(path, forms, total, header.text())
    _check_disk(path, file)
    with file, Track(f"features of {domain.name} from {teacher.name}", total) as track:
        track(file.done)
        saved = time.monotonic()
        while file.done < total:
            part = rows[file.done : file.done + BATCH]
            file.write(outputs_of(part))
            track(len(part))
            stopping = stop is not None and stop[0].requested
            if stopping or time.monotonic() - saved > SAVE_SECONDS:
                file.keep()
                saved = time.monotonic()
            if stop is not None and stopping:
                raise stopped(f"at view {file.done:,} of {domain.name}", stop[1])
        file.finish()


def _arrays(outputs: Outputs, teacher: Teacher, domain: Domain) -> dict[str, NDArray[Any]]:
    """Return arrays in half precision; predicted numbers, of any unit, in single precision."""
    kinds = {task.name: task.kind for task in domain.tasks}
    arrays: dict[str, NDArray[Any]] = {}
    for prefix, tensors in ((FEATURES, outputs.features), (PREDICTIONS, outputs.predictions)):
        for name, tensor in tensors.items():
            single = prefix == PREDICTIONS and kinds[name] == "regress"
            array = tensor.to("cpu", torch.float32 if single else torch.float16).numpy()
            if not np.isfinite(array).all():
                raise Failed(
                    f"teacher {teacher.name}: {domain.name}: {prefix}{name} is not finite in half "
                    "precision",
                    try_="distill.views = 0",
                )
            arrays[prefix + name] = array
    return arrays


def _check_disk(path: Path, file: RowsWriter) -> None:
    """Check that a file fits on its disk, before anything is computed."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    size = f"{path.name} takes {file.bytes / 1e9:,.1f} GB"
    if file.bytes > free:
        raise Failed(
            f"{size}, and {free / 1e9:,.1f} GB are free",
            try_="fewer distill.views (0: none), or other distill.feature_layers",
        )
    if file.bytes > LARGE_FILE and not file.done:
        say(size)
