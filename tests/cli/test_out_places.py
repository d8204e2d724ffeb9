"""No verb writes into a folder of the user's, and a failed one leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onetrunk.data import cache_room
from onetrunk.runs import train as training
from tests.helpers.verbs import Ran, one_line, photos

Onetrunk = Callable[..., Ran]
RECIPE = """
name = "shop"
trunk = { arch = "resnet20" }
train = { steps = 2, batch = 4, eval_every = 2 }
domains = [{ name = "digits", source = "pocket:optdigits", size = 8 }]
"""
DIGITS = "digits=pocket:optdigits"
RESNET = ("--set", "trunk.arch=resnet20")
# what writes to a folder, given its name
INTO_FOLDERS = {
    "train": ("train", "shop.toml", "--out"),
    "train without a recipe": ("train", *RESNET, "--domain", DIGITS, "--out"),
    "a dry run": ("train", "shop.toml", "--dry-run", "--out"),
    "a sweep": ("train", "shop.toml", "--seeds", "0,1", "--out"),
    "demo": ("demo", "--out"),
    "compare": ("compare", "run", "--domain", DIGITS, "--out"),
    "eval": ("eval", "run", "--out"),
}
# what writes to a file, given its name without the ending
INTO_FILES = {
    "a sheet": (("data", "pocket:optdigits", "--sheet"), ".png"),
    "a report": (("report", "run", "--out"), ".html"),
    "an export": (("export", "run"), ".onnx"),
    "a submission": (("predict", "run", "--decathlon"), ".json"),
}


def tree(root: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder; of folders, nothing."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b""
        for path in sorted(root.rglob("*"))
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a recipe, photographs and a file."""
    photos(tmp_path / "photos", each=2)
    (tmp_path / "shop.toml").write_text(RECIPE)
    (tmp_path / "file").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("photos", ("photos with cat, dog", "try: another name")),
        ("file/run", ("cannot write file/run", "file is not a folder")),
    ],
)
@pytest.mark.parametrize("name", INTO_FOLDERS)
def test_a_folder_that_is_in_use_or_impossible_is_refused_before_any_work(
    name: str, out: str, words: tuple[str, str], onetrunk: Onetrunk, place: Path
) -> None:
    before = tree(place)
    line = one_line(onetrunk(*INTO_FOLDERS[name], out))
    assert all(each in line for each in words)
    assert tree(place) == before  # nothing decoded either


@pytest.mark.parametrize("name", INTO_FILES)
def test_a_file_that_cannot_be_written_is_found_before_any_work(
    name: str, onetrunk: Onetrunk, place: Path
) -> None:
    before = tree(place)
    words, ending = INTO_FILES[name]
    line = one_line(onetrunk(*words, f"file/it{ending}"))
    assert "file" in line.split("got: ")[1]
    assert tree(place) == before


def test_the_baselines_of_a_recipe_have_folders_of_their_own(
    onetrunk: Onetrunk, place: Path
) -> None:
    (place / "photos").rename(place / "mine-frozen")
    before = tree(place)
    words = ("compare", "shop.toml", "--methods", "frozen", "--set", "out=mine")
    assert "mine-frozen with cat, dog" in one_line(onetrunk(*words))
    assert tree(place) == before


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


FAILING = {
    "an unknown key": ("train", "shop.toml", "--set", "train.step=3"),
    "a missing source": ("train", *RESNET, "--domain", "shop=folder:nowhere"),
    "a single class": ("train", *RESNET, "--domain", "shop=folder:."),
    "an impossible size": ("train", "shop.toml", "--set", "domains.digits.size=99999"),
    "a missing teacher": ("train", "shop.toml", "--set", "distill.teachers=nowhere"),
    "an unknown logger": ("train", "shop.toml", "--set", "train.loggers=[a.b:c]"),
    "an unknown device": ("train", "shop.toml", "--device", "abacus"),
    "a sweep": ("train", "shop.toml", "--seeds", "0,1", "--device", "abacus"),
    "demo": ("demo",),
    "a missing run": ("add", "nowhere", "digits", "pocket:optdigits"),
    "a comparison": ("compare", "nowhere", "--domain", DIGITS),
    "a report": ("report", "nowhere"),
    "an export": ("export", "nowhere", "x.onnx"),
    "predictions": ("predict", "nowhere", "photos", "--out", "maps"),
    "a sheet": ("data", "folder:.", "--size", "8", "--sheet", "sheet.png"),
    "Ctrl-C": ("train", "shop.toml"),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_failed_command_leaves_nothing_behind(
    name: str,
    onetrunk: Onetrunk,
    place: Path,
    cache_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name in ("demo", "Ctrl-C"):
        monkeypatch.setattr(training, "fit", interrupt)
    before = tree(place)
    ran = onetrunk(*FAILING[name])
    assert ran.code in (1, 2), ran.out
    if name in ("a single class", "a sheet"):
        assert "nothing to learn" in ran.err
        assert (name == "a sheet") == cache_home.exists()  # before anything is decoded
    cached = cache_home.relative_to(place)
    after = {path: content for path, content in tree(place).items() if cached.name not in path}
    assert after == before


def test_a_refused_cache_leaves_nothing_behind(
    onetrunk: Onetrunk, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_room, "LARGE", 1000)
    before = tree(place)
    for words in (("data", "pocket:optdigits"), ("train", "shop.toml")):
        assert "try: --yes" in one_line(onetrunk(*words))
        assert tree(place) == before
    ran = onetrunk("data", "pocket:optdigits", "--yes")
    assert ran.code == 0, ran.err


def test_the_question_is_asked_on_a_terminal(
    onetrunk: Onetrunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_room, "LARGE", 1000)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    asked: list[str] = []

    def answer(question: str, **_: object) -> bool:
        asked.append(question)
        return len(asked) > 1

    monkeypatch.setattr("typer.confirm", answer)
    assert onetrunk("data", "pocket:optdigits").code == 2
    assert onetrunk("data", "pocket:optdigits").code == 0
    assert len(asked) == 2 and "GB" in asked[0]
