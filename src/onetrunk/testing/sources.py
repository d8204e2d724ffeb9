"""Conformance of sources."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.pixels import Pixels
from onetrunk.data.sources import Item, Label, Source
from onetrunk.data.task import Task

PIXELS = Pixels((8, 8))


def check_source(make: Callable[[], Source], absolute: str = "") -> None:
    """Check a source.

    Args:
        absolute: A path of this machine that no key may contain.
    """
    source, again = make(), make()
    assert isinstance(source, Source), "it lacks tasks, items, image or target"
    tasks = {task.name: task for task in source.tasks}
    assert len(tasks) == len(source.tasks), "two tasks have one name"
    items = list(source.items())
    assert items, "it has no images"
    assert items == list(source.items()) == list(again.items()), "its images change"
    assert source.tasks == again.tasks, "its tasks change"
    assert all(isinstance(note, str) for note in getattr(source, "notes", [])), "a note is not text"
    keys = [item.key for item in items]
    assert len(set(keys)) == len(keys), "two images have one key"
    for item in items:
        check_item(item, tasks, absolute)
        image = PIXELS.read(again.image(item.where))  # opened again, as in another process
        assert image.shape == (8, 8, 3), f"{item.key}: an image of shape {image.shape}"
        for task in source.tasks:
            target = source.target(item.where, task.name)
            assert task.dense or target is None, f"{item.key}: {task.name} has no dense targets"
            if target is not None:
                check_target(task, target)
    copy = pickle.loads(pickle.dumps(source))  # as in a worker process
    expected, got = (PIXELS.read(each.image(items[-1].where)) for each in (source, copy))
    assert np.array_equal(got, expected), "a pickled copy reads another image"


def check_item(item: Item, tasks: Mapping[str, Task], absolute: str = "") -> None:
    """An image has a relative key, a stamp, a known split, and labels of its tasks' kinds."""
    assert item.key, "an empty key"
    local = item.key.startswith("/") or re.search(r"\\|^[A-Za-z]:|(^|/)\.\.(/|$)", item.key)
    assert not local, f"{item.key} is not a relative path with forward slashes"
    assert not absolute or absolute not in item.key, f"{item.key} contains a path of this machine"
    assert item.stamp, f"{item.key} has no stamp"
    assert item.split in (None, "train", "val", "test"), f"{item.key} is in {item.split}"
    labelled = {task.name for task in tasks.values() if not task.dense}
    assert set(item.labels) == labelled, f"{item.key} has labels of {sorted(item.labels)}"
    for name, label in item.labels.items():
        if label is not None:
            assert _fits(tasks[name], label), f"{item.key}: {label!r} as a label of {name}"


def _fits(task: Task, label: Label) -> bool:
    """Return whether a label has the type of its task, and names known classes."""
    if task.kind in ("classify", "embed"):
        return isinstance(label, str) and (not task.classes or label in task.classes)
    if task.kind == "multilabel":
        return isinstance(label, tuple) and (not task.classes or set(label) <= {*task.classes})
    return isinstance(label, float if task.outputs == 1 else tuple)


def check_target(task: Task, target: NDArray[Any]) -> None:
    """A dense target has the shape, type and values of its kind."""
    if task.kind == "segment":
        assert target.ndim == 2, f"{task.name}: shape {target.shape}"
        assert np.issubdtype(target.dtype, np.integer), f"{task.name}: {target.dtype}"
        values = np.unique(target)
        known = [value < len(task.classes) or value == 255 for value in values]
        assert all(known), f"{task.name}: classes {values}"
        return
    assert target.dtype == np.float32, f"{task.name}: {target.dtype}"
    assert np.isfinite(target).all(), f"{task.name}: numbers that are not finite"
    if task.kind == "depth":
        assert target.ndim == 2, f"{task.name}: shape {target.shape}"
        assert (target >= 0).all(), f"{task.name}: negative depths"
    else:
        assert target.shape[2:] == (3,), f"{task.name}: shape {target.shape}"
        length = np.linalg.norm(target, axis=2)
        assert np.allclose(length[length > 0], 1, atol=1e-3), f"{task.name}: not unit vectors"
