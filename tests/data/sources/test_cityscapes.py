"""`cityscapes:` arrays: classes and unit as the user sets them, refused without."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onetrunk.data.domain import Domain
from onetrunk.data.inspect import inspect
from onetrunk.data.pixels import BadImage
from onetrunk.data.sources.cityscapes import CLASSES
from onetrunk.errors import BadInput
from tests.helpers.errors import raises


@pytest.mark.parametrize("classes", ["7", "19"])
@pytest.mark.parametrize(("depth", "unit"), [("disparity", "disparity"), ("metres", "m")])
def test_classes_and_unit_are_those_that_the_user_sets(
    built: Any, opened: Any, tmp_path: Path, classes: str, depth: str, unit: str
) -> None:
    built("cityscapes")
    source = opened(f"cityscapes:cityscapes?depth={depth}&classes={classes}")
    segment, metres = source.tasks
    assert (segment.classes, segment.column) == (CLASSES[classes], f"label_{classes}")
    assert len(segment.classes) == int(classes)
    assert (metres.unit, metres.inverse) == (unit, unit == "disparity")
    assert source.size == (128, 256)
    label = np.load(tmp_path / f"cityscapes/val/label_{classes}/1.npy")
    stored = np.load(tmp_path / "cityscapes/val/depth/1.npy")[..., 0]
    np.testing.assert_array_equal(
        source.target("val/1", "segment"), np.where(label < 0, 255, label)
    )
    np.testing.assert_allclose(source.target("val/1", "depth"), stored, rtol=1e-6)  # unchanged


def test_classes_and_unit_are_never_guessed(built: Any, opened: Any) -> None:
    built("cityscapes")
    with raises(BadInput, "classes=7", "classes=19", "depth=disparity", "depth=metres") as error:
        opened("cityscapes:cityscapes")
    assert len(error.value.available or ()) == 2
    assert "\n" not in str(error.value)
    with raises(BadInput, "depth=disparity", "depth=metres", try_="?classes=7&depth=…"):
        opened("cityscapes:cityscapes?classes=7")
    with raises(BadInput, available=["classes=7 or classes=19"]):
        opened("cityscapes:cityscapes?depth=disparity")
    assert [t.name for t in opened("cityscapes:cityscapes?classes=7", ["segment"]).tasks] == [
        "segment"
    ]
    assert [t.name for t in opened("cityscapes:cityscapes?depth=metres", ["depth"]).tasks] == [
        "depth"
    ]
    with raises(BadInput, got="8", available=["7", "19"]):
        opened("cityscapes:cityscapes?classes=8")
    with raises(BadInput, got="inverse", available=["disparity", "metres"]):
        opened("cityscapes:cityscapes?depth=inverse")


def test_one_folder_of_labels(built: Any, opened: Any, tmp_path: Path) -> None:
    built("cityscapes")
    for split in ("train", "val"):
        shutil.move(
            tmp_path / f"cityscapes/{split}/label_19", tmp_path / f"cityscapes/{split}/label"
        )
        shutil.rmtree(tmp_path / f"cityscapes/{split}/label_7")
    with raises(BadInput, available=["classes=7 or classes=19"]):
        opened("cityscapes:cityscapes?depth=disparity")
    right = opened("cityscapes:cityscapes?classes=19&depth=disparity")
    assert right.target("train/0", "segment").max() == 255
    with pytest.raises(BadImage, match="outside the 7 classes"):
        opened("cityscapes:cityscapes?classes=7&depth=disparity").target("train/0", "segment")


def test_the_unit_of_depth_goes_with_the_task(built: Any, tmp_path: Path) -> None:
    domain = Domain("streets", built("cityscapes"), size=(32, 64), base=tmp_path)
    assert [task.unit for task in domain.tasks] == ["", "disparity"]
    _, targets = domain.splits["test"].batch(np.arange(2))
    assert targets["depth"].shape == (2, 32, 64)
    assert float(targets["depth"].max()) < 0.5
    inspection = inspect(domain)
    assert [labels.unit for labels in inspection.tasks] == ["", "disparity"]
    assert any("test split" in line for line in inspection.warnings)
