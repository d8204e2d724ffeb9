"""`onetrunk data`, and the command line itself: results on standard output, errors in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from onetrunk.cli import data
from onetrunk.data.cache import cache_home
from onetrunk.data.cache_entries import USED, entries
from onetrunk.errors import Failed
from tests.helpers.verbs import Ran, one_line, photos


def test_without_a_source_embedded_domains_are_listed(onetrunk: Callable[..., Ran]) -> None:
    ran = onetrunk("data")
    assert ran.code == 0
    for name in ("digits", "glyphs", "flags"):
        assert f"pocket:{name}" in ran.out
    assert "  onetrunk data pocket:" in ran.out
    assert ran.err == ""


def test_the_list_as_json(onetrunk: Callable[..., Ran]) -> None:
    ran = onetrunk("data", "--json")
    found = json.loads(ran.out)
    assert found["optdigits"]["size"] == [8, 8]
    assert set(found["optdigits"]["splits"]) == {"train", "val", "test"}


def test_the_default_size_is_explained(onetrunk: Callable[..., Ran], tmp_path: Path) -> None:
    source = f"folder:{photos(tmp_path / 'photos')}"
    found = " ".join(onetrunk("data", source).out.split())
    assert re.search(r"trained at 64x64 \(the default for a pretrained trunk on a [CG]PU", found)
    assert "--size sets it" in found
    given = " ".join(onetrunk("data", source, "--size", "8").out.split())
    assert "trained at 8x8 mean" in given


def test_a_source_is_described(onetrunk: Callable[..., Ran]) -> None:
    ran = onetrunk("data", "pocket:optdigits")
    assert ran.code == 0
    for line in (
        r"images +train 1,\d+, val \d+, test \d+ \(from the source\)",
        r"classify +classify, 10 classes; largest \d",
        r"pixels +8x8; trained at 8x8",
        r"mean +0\.\d{3} 0\.\d{3} 0\.\d{3}",
        r"duplicates +none across splits",
        r"cache +[\d.]+ MB of decoded images",
    ):
        assert re.search(line, ran.out), line
    assert str(cache_home()) in ran.out.replace("\n", "")


def test_json_output_is_json_only(onetrunk: Callable[..., Ran], tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    (root / "cat/ø\x1b[31m日本.jpg").write_bytes(b"a text")
    (root / "cat/plain.jpg").write_bytes(b"a text")
    ran = onetrunk("data", "folder:photos", "--size", "8", "--json", "--sheet", "sheet.png")
    assert ran.code == 0
    found = json.loads(ran.out)
    assert sum(found["splits"].values()) == 80
    assert set(found["unreadable"]) == {"cat/ø\x1b[31m日本.jpg", "cat/plain.jpg"}
    assert found["how"] == "70/15/15 by hash of the path in each class"
    assert ran.out.isascii()
    assert "wrote sheet.png" in ran.err


def test_markup_and_control_characters_in_names_are_escaped(
    onetrunk: Callable[..., Ran], tmp_path: Path
) -> None:
    root = photos(tmp_path / "photos", ("[bold]cat[", "do\x1b[31mg"))
    # the path contains markup, [/red], and a control sequence that sets a terminal's title
    (root / "[bold]cat[" / "red]\x1b]0;title\x07.jpg").write_bytes(b"a text")
    for i in range(5):
        (root / "[bold]cat[" / f"{i:03}.png").unlink()
    ran = onetrunk("data", "folder:photos", "--size", "8")
    assert ran.code == 0
    assert "\x1b" not in ran.out
    assert "\x07" not in ran.out
    assert r"[bold]cat[/red]\x1b]0;title\x07.jpg: not an image" in ran.out
    for name in ("[bold]cat[", r"do\x1b[31mg"):
        assert name in ran.out
    named = onetrunk("data", "folder:[/red]")
    assert "[/red]" in one_line(named)


def test_a_sheet_is_a_png(onetrunk: Callable[..., Ran], tmp_path: Path) -> None:
    ran = onetrunk("data", "pocket:optdigits", "--sheet", "new/sheet.png")
    assert ran.code == 0
    assert "wrote new/sheet.png" in ran.out
    with Image.open(tmp_path / "new/sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert min(sheet.size) > 300


def cached(*sources: str, onetrunk: Callable[..., Ran]) -> None:
    for source in sources:
        assert onetrunk("data", source, "--size", "8").code == 0


def test_the_cache_is_listed(onetrunk: Callable[..., Ran], tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    cached("pocket:optdigits", "folder:photos", onetrunk=onetrunk)
    ran = onetrunk("data", "--cache")
    assert ran.code == 0
    assert "pocket:optdigits" in ran.out and f"folder:{tmp_path}/photos" in ran.out
    assert f"in {cache_home()}; limit: " in ran.out
    found = json.loads(onetrunk("data", "--cache", "--json").out)
    assert found["cache"] == str(cache_home())
    last, first = found["entries"]
    assert (last["images"], last["size"], last["in_use"]) == (80, "8x8", False)
    assert found["bytes"] == last["bytes"] + first["bytes"]


def test_purge_deletes_what_is_chosen(onetrunk: Callable[..., Ran], tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    cached("pocket:optdigits", "folder:photos", onetrunk=onetrunk)
    ran = onetrunk("data", "folder:photos", "--purge", "--dry-run")
    assert "nothing was deleted" in ran.out and "photos" in ran.out
    assert len(entries(cache_home())) == 2
    assert "--yes" in one_line(onetrunk("data", "folder:photos", "--purge")).split("try:")[1]
    assert len(entries(cache_home())) == 2
    found = json.loads(onetrunk("data", "folder:photos", "--purge", "--yes", "--json").out)
    assert [entry["source"] for entry in found["entries"]] == [f"folder:{tmp_path}/photos"]
    (left,) = entries(cache_home())
    assert str(left.origin) == "pocket:optdigits"
    assert "pocket:optdigits" in one_line(onetrunk("data", "folder:photos", "--purge"))
    # by age
    os.utime(left.folder / USED, (time.time() - 10 * 86_400,) * 2)
    assert onetrunk("data", "--purge", "--older-than", "2w").code == 0
    assert len(entries(cache_home())) == 1
    assert onetrunk("data", "--purge", "--older-than", "9d", "--yes").code == 0
    assert entries(cache_home()) == []


def test_purge_of_all_asks_on_a_terminal(
    onetrunk: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached("pocket:optdigits", onetrunk=onetrunk)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    answers = iter([False, True])
    monkeypatch.setattr("typer.confirm", lambda *_, **__: next(answers))
    assert onetrunk("data", "--purge", "--all").code == 2
    assert any(cache_home().rglob("images.bin"))
    assert "deleted" in onetrunk("data", "--purge", "--all").out
    assert list(cache_home().iterdir()) == []
    assert onetrunk("data", "--purge", "--all").code == 0  # nothing left to ask about


BAD = {
    "an unknown option": (("data", "--sizes", "8"), "got: '--sizes'"),
    "an option without its value": (("data", "--size"), "--size"),
    "an unknown verb": (("dta",), "data"),
    "an unknown embedded domain": (("data", "pocket:digit"), "try: digits"),
    "an unknown prefix": (("data", "foldr:photos"), "try: folder:"),
    "a missing folder": (("data", "folder:nowhere"), "nowhere"),
    "an empty folder": (("data", "folder:empty"), "empty"),
    "a purge of nothing": (("data", "--purge"), "--older-than"),
    "a purge of all and of some": (("data", "--purge", "--all", "--older-than", "3d"), "--all"),
    "an age that is none": (("data", "--purge", "--older-than", "soon"), "30d"),
    "an age without purge": (("data", "--older-than", "3d"), "--purge"),
    "a size that is not a number": (("data", "pocket:digits", "--size", "big"), "HEIGHTxWIDTH"),
    "a size of zero": (("data", "pocket:digits", "--size", "0"), "1 to 16384 pixels"),
    "a negative size": (
        ("data", "pocket:digits", "--size", "-5"),
        "error: size: expected 1 to 16384 pixels",
    ),
    "a source without prefix": (("data", "hollow"), "error: expected a source"),
    "three sizes": (("data", "pocket:digits", "--size", "1x2x3"), "HEIGHTxWIDTH"),
    "an unknown fit": (("data", "pocket:digits", "--fit", "padd"), "try: pad"),
    "a task without kind": (("data", "pocket:digits", "--task", "a"), "NAME=KIND"),
    "an unknown kind": (("data", "pocket:digits", "--task", "a=clasify"), "available: classify"),
    "a task twice": (
        ("data", "pocket:digits", "--task", "a=classify", "--task", "a=embed"),
        "twice",
    ),
    "an unknown task": (
        ("data", "pocket:digits", "--task", "price=regress"),
        "classify (classify)",
    ),
    "a sheet that is not a PNG": (("data", "pocket:digits", "--sheet", "a.txt"), "PNG"),
    "an unknown column": (
        ("data", "table:shop.csv", "--task", "a=classify:colour"),
        "colour",
    ),
    "a path that leaves the root": (("data", "table:escape.csv"), "out of the source's folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    name: str, onetrunk: Callable[..., Ran], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    photos(tmp_path / "hollow", ("cat",), 20)
    (tmp_path / "shop.csv").write_text("path,label\nhollow/cat/000.png,a\n")
    (tmp_path / "escape.csv").write_text("path,label\n../../secret.png,a\n")
    words, fact = BAD[name]
    ran = onetrunk(*words)
    assert fact in one_line(ran)
    assert "try:" in ran.err or "available:" in ran.err or "got:" in ran.err
    assert ran.out == ""


def test_too_many_bad_files_are_shown_then_refused(
    onetrunk: Callable[..., Ran], tmp_path: Path
) -> None:
    root = photos(tmp_path / "photos")
    for i in range(30):
        (root / "cat" / f"bad{i:02}.jpg").write_bytes(b"a text")
    ran = onetrunk("data", "folder:photos", "--size", "8", "--sheet", "sheet.png")
    assert ran.code == 2
    assert "bad00.jpg: not an image" in ran.out
    assert "30 unreadable files" in ran.out
    assert "train images cannot be read, more than max(1 %, 3)" in ran.err
    lines = ran.err.splitlines()
    assert len(lines) > 1  # one for each problem
    assert all(line.startswith("error: ") and "data: " not in line for line in lines)
    assert "--set domains.NAME.allow_bad=true" in lines[0]
    assert not (tmp_path / "sheet.png").exists()


def test_a_class_alone_is_shown_then_refused(onetrunk: Callable[..., Ran], tmp_path: Path) -> None:
    photos(tmp_path / "photos", ("cat",), 20)
    (tmp_path / "photos/dog").mkdir()
    ran = onetrunk("data", "folder:photos", "--size", "8")
    assert ran.code == 2
    assert "class folders without images: 1 (dog)" in ran.out
    assert "training" in ran.out and "would not start" in ran.out
    assert "nothing to learn" in ran.err and "'cat'" in ran.err


def test_an_empty_class_folder_is_ignored_with_a_note(
    onetrunk: Callable[..., Ran], tmp_path: Path
) -> None:
    photos(tmp_path / "photos")
    (tmp_path / "photos/cow/empty").mkdir(parents=True)
    ran = onetrunk("data", "folder:photos", "--size", "8")
    assert ran.code == 0
    assert "class folders without images: 1 (cow)" in ran.out
    assert "2 classes" in ran.out
    assert re.search(r"training +would start *\n", ran.out)


def test_a_few_bad_files_do_not_stop_a_training(
    onetrunk: Callable[..., Ran], tmp_path: Path
) -> None:
    photos(tmp_path / "photos")
    (tmp_path / "photos/cat/bad.jpg").write_bytes(b"a text")
    ran = onetrunk("data", "folder:photos", "--size", "8")
    assert re.search(r"training +would start, without 1 unreadable file", ran.out)


def test_a_failure_is_exit_code_1(
    onetrunk: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Failed("the disk is full; try: free some space")

    monkeypatch.setattr(data, "inspect", fail)
    ran = onetrunk("data", "pocket:digits")
    assert one_line(ran, 1) == "error: the disk is full; try: free some space"


def test_ctrl_c_says_only_what_is_true_of_all_commands(
    onetrunk: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "inspect", interrupt)
    ran = onetrunk("data", "pocket:digits")
    assert (ran.code, ran.err) == (1, "Interrupted. Files that were finished are kept.\n")


def test_other_exceptions_keep_their_traceback(
    onetrunk: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def divide(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(data, "inspect", divide)
    with pytest.raises(ZeroDivisionError):
        onetrunk("data", "pocket:digits")


def test_help_names_every_option_and_shows_examples(onetrunk: Callable[..., Ran]) -> None:
    ran = onetrunk("data", "--help")
    assert ran.code == 0
    options = ["size", "fit", "task", "image", "group", "split", "sheet", "json", "purge"]
    options += ["fix-duplicates", "model", "domain", "top", "out"]
    assert all(f"--{name}" in ran.out for name in options)
    assert "onetrunk data folder:photos" in ran.out
    assert "Train and compare" in onetrunk("--help").out
    bare = onetrunk()
    assert bare.code == 2
    assert "Train and compare" in bare.out


def test_size_group_fit_and_task_reach_the_domain(
    onetrunk: Callable[..., Ran], tmp_path: Path
) -> None:
    root = photos(tmp_path / "shop", ("images",), 60)
    rows = [f"images/{i:03}.png,{'ab'[i % 2]},{i},g{i // 2}" for i in range(60)]
    (root / "shop.csv").write_text("\n".join(["file,kind,price,item", *rows]) + "\n")
    ran = onetrunk(
        *("data", "table:shop/shop.csv", "--image", "file", "--group", "item", "--size", "6x12"),
        *("--task", "category=classify:kind", "--task", "price=regress", "--json"),
    )
    found = json.loads(ran.out)
    assert [task["task"] for task in found["tasks"]] == ["category", "price"]
    assert found["trained_at"] == [6, 12]
    assert found["how"] == "70/15/15 by hash of the group in each class"
    assert found["tasks"][0]["classes"] == ["a", "b"]


def test_classes_with_few_images_to_evaluate_on_are_named(
    onetrunk: Callable[..., Ran], tmp_path: Path
) -> None:
    root = photos(tmp_path / "photos", ("cat", "dog"), 40)
    for i in range(20, 40):
        (root / "dog" / f"{i:03}.png").unlink()
    ran = onetrunk("data", "folder:photos", "--size", "8", "--json")
    (line,) = (line for line in json.loads(ran.out)["warnings"] if "fewer than" in line)
    assert line == (
        "task classify: 1 of 2 classes have fewer than 5 val images (dog 3); "
        "1 of 2 classes have fewer than 5 test images (dog 3)"
    )
    assert "no image" not in ran.out
    assert "fewer than" in onetrunk("data", "folder:photos", "--size", "8").out


def duplicated(root: Path) -> Path:
    photos(root)
    for copy, original in (("dog/x.png", "cat/000.png"), ("cat/y\x1b.png", "cat/001.png")):
        (root / copy).write_bytes((root / original).read_bytes())
    return root


def test_fix_duplicates_shows_a_plan_and_changes_nothing(
    onetrunk: Callable[..., Ran], tmp_path: Path
) -> None:
    root = duplicated(tmp_path / "photos")
    before = {path: path.read_bytes() for path in root.rglob("*.png")}
    ran = onetrunk("data", "folder:photos", "--fix-duplicates")
    assert ran.code == 0
    for line in (
        "4 of 82 images are in 2 groups of identical or near duplicates:",
        "  cat/000.png = dog/x.png",
        "  cat/y\\x1b.png, as cat/001.png is kept",
        "  cat/000.png (cat) = dog/x.png (dog)",
        "Nothing was changed. For the [[domains]] table of a recipe:",
        '  duplicates = "group"    # each of 2 groups is in one split',
        '  duplicates = "drop"     # or leave out 1 images',
        '  conflicts = "drop"      # leave out 2 images',
    ):
        assert line in ran.out.splitlines()
    assert {path: path.read_bytes() for path in root.rglob("*.png")} == before
    plan = json.loads(onetrunk("data", "folder:photos", "--fix-duplicates", "--json").out)
    assert plan["conflicts"] == [{"cat/000.png": "cat", "dog/x.png": "dog"}]
    assert plan["left_out"] == {"cat/y\x1b.png": "cat/001.png"}
    assert plan["across_given_splits"] == []


def test_fix_duplicates_of_given_splits_says_what_becomes_of_them(
    onetrunk: Callable[..., Ran], tmp_path: Path
) -> None:
    for split in ("train", "val", "test"):
        photos(tmp_path / "named" / split, each=4)
    ran = onetrunk("data", "folder:named", "--fix-duplicates")
    assert "8 groups are in several of the source's own splits" in ran.out
    assert "  train/cat/000.png, as test/cat/000.png is kept" in ran.out
    photos(tmp_path / "clean")
    assert "no duplicates among 80" in onetrunk("data", "folder:clean", "--fix-duplicates").out


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("--fix-duplicates",), "SOURCE"),
        (("pocket:digits", "--fix-duplicates", "--sheet", "a.png"), "--sheet"),
        (("pocket:digits", "--domain", "digits"), "--model"),
        (("pocket:digits", "--out", "a.csv"), "--model"),
        (("pocket:digits", "--model", "nowhere"), "nowhere"),
        (("pocket:digits", "--model", "nowhere", "--out", "a.txt"), "CSV"),
    ],
)
def test_options_of_other_forms_are_refused(
    words: tuple[str, ...], fact: str, onetrunk: Callable[..., Ran]
) -> None:
    assert fact in one_line(onetrunk("data", *words))


@pytest.mark.skipif(os.name == "nt", reason="a closed pipe raises another error on Windows")
def test_a_closed_output_pipe_gives_no_traceback() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "onetrunk", "data"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    assert "Traceback" not in child.stderr.read()
    assert child.wait() == 1
