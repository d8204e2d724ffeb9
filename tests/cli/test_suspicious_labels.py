"""`onetrunk data --model RUN`: the list of suspicious labels, its files, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.runs.train import train
from tests.helpers.added import FEW
from tests.helpers.small import network
from tests.helpers.verbs import Ran, one_line, photos


def colors(root: Path) -> Path:
    """Write images of two colors, each in its folder but for one that is in the other."""
    for name, color in (("red", (200, 20, 20)), ("blue", (20, 20, 200))):
        photos(root, (name,), 30)
        for path in sorted((root / name).iterdir()):
            with Image.open(path) as image:
                Image.blend(image, Image.new("RGB", image.size, color), 0.6).save(path)
    (root / "red/007.png").rename(root / "blue/=wrong\x1b.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("colors")
    domain = Domain("paint", f"folder:{colors(top / 'paint')}", size=16, cache=top / "cache")
    train(network([domain]), [domain], out=top / "run", train=Train(**FEW))
    return top


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "work"))


def test_the_image_in_the_wrong_folder_is_listed_first_and_written(
    onetrunk: Callable[..., Ran], place: Path, tmp_path: Path
) -> None:
    source = f"folder:{place / 'paint'}"
    ran = onetrunk(
        *("data", source, "--model", "work/run", "--size", "16"),
        *("--out", "new/suspects.csv", "--sheet", "suspects.png"),
    )
    assert ran.code == 0
    assert "of 60 labels are suspicious" in ran.out
    line = next(line for line in ran.out.splitlines() if "blue/=wrong" in line)
    assert "\x1b" not in ran.out and r"blue/=wrong\x1b.png" in line
    assert "red" in line and "%" in line
    assert "wrote new/suspects.csv" in ran.out and "wrote suspects.png" in ran.out
    with (tmp_path / "new/suspects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["path"] == "blue/=wrong\x1b.png"
    assert (rows[0]["label"], rows[0]["suggested"]) == ("blue", "red")
    with Image.open(tmp_path / "suspects.png") as sheet:
        assert sheet.format == "PNG"


def test_without_a_source_the_images_of_the_run_are_checked(
    onetrunk: Callable[..., Ran], trained: Path
) -> None:
    run = str(trained / "run")
    found = json.loads(onetrunk("data", "--model", run, "--json").out)
    assert found["domain"] == "paint"
    assert found["images"] == 60
    assert found["suspicious"][0]["path"] == "blue/=wrong\x1b.png"
    assert found["suspicious"][0]["confidence"] > 0.5
    named = onetrunk("data", "--model", run, "--domain", "paint", "--top", "1")
    assert "--out suspects.csv" in named.out


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("--domain", "shop"), "available: paint"),
        (("--out", "suspects.txt"), "--out suspects.csv"),
        (("--sheet", "suspects.txt"), "PNG"),
        (("--size", "8"), "SOURCE"),
    ],
)
def test_bad_input_is_refused_before_the_work(
    words: tuple[str, ...], fact: str, onetrunk: Callable[..., Ran], trained: Path
) -> None:
    assert fact in one_line(onetrunk("data", "--model", str(trained / "run"), *words))
