"""One suite over every source, and over a user's own."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onetrunk.data.pixels import Pixels
from onetrunk.data.sources import SOURCES, Item, Source, SourceOptions, open_source
from onetrunk.data.task import Task

KINDS = ["folder", "dense", "table", "hf", "torchvision", "webdataset", "coco", "decathlon"]
KINDS += ["nyuv2", "cityscapes", "unlabelled"]


def check_source(make: Callable[[], Source], absolute: str = "") -> None:
    """Check the contract of sources.

    Args:
        absolute: A path of this machine, which no key may hold.
    """
    source, again = make(), make()
    assert isinstance(source, Source)
    tasks = {task.name: task for task in source.tasks}
    assert len(tasks) == len(source.tasks)
    items = list(source.items())
    assert items
    assert items == list(source.items()) == list(again.items())
    assert source.tasks == again.tasks
    assert all(isinstance(note, str) for note in getattr(source, "notes", []))
    keys = [item.key for item in items]
    assert len(set(keys)) == len(keys)
    pixels = Pixels((8, 8))
    for item in items:
        check_item(item, tasks, absolute)
        image = pixels.read(again.image(item.where))  # as another process would
        assert image.shape == (8, 8, 3)
        for task in source.tasks:
            target = source.target(item.where, task.name)
            assert task.dense or target is None
            if target is not None:
                check_target(task, target)
    copy = pickle.loads(pickle.dumps(source))  # a worker of another process gets it so
    assert np.array_equal(
        pixels.read(copy.image(items[-1].where)), pixels.read(source.image(items[-1].where))
    )


def check_item(item: Item, tasks: dict[str, Task], absolute: str) -> None:
    """A key for people, a stamp, a split of ours, labels of the task's kind."""
    assert item.key
    assert not item.key.startswith("/")
    assert not re.search(r"\\|^[A-Za-z]:|(^|/)\.\.(/|$)", item.key)
    assert not absolute or absolute not in item.key
    assert item.stamp
    assert item.split in (None, "train", "val", "test")
    assert set(item.labels) == {task.name for task in tasks.values() if not task.dense}
    for name, label in item.labels.items():
        task = tasks[name]
        if label is None:
            continue
        if task.kind in ("classify", "embed"):
            assert isinstance(label, str)
            assert not task.classes or label in task.classes
        elif task.kind == "multilabel":
            assert isinstance(label, tuple)
            assert not task.classes or set(label) <= set(task.classes)
        else:
            assert isinstance(label, float if task.outputs == 1 else tuple)


def check_target(task: Task, target: NDArray[Any]) -> None:
    """The shape and the values of a dense target."""
    if task.kind == "segment":
        assert target.ndim == 2
        assert np.issubdtype(target.dtype, np.integer)
        assert all(value < len(task.classes) or value == 255 for value in np.unique(target))
        return
    assert target.dtype == np.float32
    assert np.isfinite(target).all()
    if task.kind == "depth":
        assert target.ndim == 2
        assert (target >= 0).all()
    else:
        assert target.shape[2:] == (3,)
        length = np.linalg.norm(target, axis=2)
        assert np.allclose(length[length > 0], 1, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_keeps_the_contract(kind: str, built: Any, tmp_path: Path) -> None:
    name = built(kind)
    check_source(lambda: open_source(name, SourceOptions(tmp_path)), str(tmp_path))


def test_every_known_source_is_in_the_suite() -> None:
    assert set(SOURCES) - {"pocket"} <= set(KINDS)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "torchvision"])
def test_a_changed_file_changes_a_stamp(kind: str, built: Any, tmp_path: Path) -> None:
    if kind == "hf":
        pytest.skip("its stamp is the library's own fingerprint")
    name = built(kind)
    before = [item.stamp for item in open_source(name, SourceOptions(tmp_path)).items()]
    endings = (".png", ".jpg", ".tar", ".npy")
    file = next(p for p in sorted(tmp_path.rglob("*")) if p.suffix in endings and p.is_file())
    import os

    os.utime(file, ns=(1, 1))
    after = [item.stamp for item in open_source(name, SourceOptions(tmp_path)).items()]
    assert before != after


class Own:
    """A user's own source."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        assert rest == ""
        self.tasks = options.tasks or (Task("classify", "classify", ("dark", "light")),)

    def items(self) -> Iterator[Item]:
        for i in range(4):
            labels = {task.name: ("dark", "light")[i // 2] for task in self.tasks}
            yield Item(f"grey/{i}", str(i), f"v1-{i}", labels=labels)

    def image(self, where: str) -> NDArray[Any]:
        return np.full((5, 6, 3), 60 * int(where), np.uint8)

    def target(self, where: str, task: str) -> None:
        return None


def test_a_users_own_source(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("mypackage.sources")
    module.Own = Own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mypackage.sources", module)
    check_source(lambda: open_source("mypackage.sources:Own", SourceOptions()))
