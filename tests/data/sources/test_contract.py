"""One suite over every source, and over a user's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onetrunk.data.sources import SOURCES, Item, SourceOptions, open_source
from onetrunk.data.task import Task
from onetrunk.testing import check_source

KINDS = ["folder", "dense", "table", "hf", "torchvision", "webdataset", "coco", "decathlon"]
KINDS += ["nyuv2", "cityscapes", "unlabelled"]


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
