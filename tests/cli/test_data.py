"""`onetrunk data`, and the command line itself: results on standard output, errors in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from onetrunk.cli import data
from onetrunk.data.cache import cache_home
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
    assert found["how"] == "70/15/15 by hash of the path"
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


def test_purge_empties_the_cache(onetrunk: Callable[..., Ran]) -> None:
    onetrunk("data", "pocket:optdigits")
    assert any(cache_home().rglob("images.bin"))
    ran = onetrunk("data", "--purge")
    assert ran.code == 0
    assert re.fullmatch(rf"deleted [\d.]+ MB from {re.escape(str(cache_home()))}\n", ran.out)
    assert list(cache_home().iterdir()) == []
    assert json.loads(onetrunk("data", "--purge", "--json").out) == {
        "emptied": str(cache_home()),
        "bytes": 0,
    }
    again = onetrunk("data", "pocket:optdigits", "--purge", "--json")
    assert json.loads(again.out)["splits"]["train"] > 0
    assert "deleted" in again.err


BAD = {
    "an unknown option": (("data", "--sizes", "8"), "got: '--sizes'"),
    "an option without its value": (("data", "--size"), "--size"),
    "an unknown verb": (("dta",), "data"),
    "an unknown embedded domain": (("data", "pocket:digit"), "available: digits"),
    "an unknown prefix": (("data", "foldr:photos"), "available: folder:"),
    "a missing folder": (("data", "folder:nowhere"), "nowhere"),
    "an empty folder": (("data", "folder:empty"), "empty"),
    "a class without images": (("data", "folder:hollow"), "classes without images: 1 (dog)"),
    "a size that is not a number": (("data", "pocket:digits", "--size", "big"), "HEIGHTxWIDTH"),
    "a size of zero": (("data", "pocket:digits", "--size", "0"), "1 to 16384 pixels"),
    "three sizes": (("data", "pocket:digits", "--size", "1x2x3"), "HEIGHTxWIDTH"),
    "an unknown fit": (("data", "pocket:digits", "--fit", "padd"), "available: pad"),
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
    (tmp_path / "hollow/dog").mkdir()
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
    assert all(line.startswith("error: data: ") for line in ran.err.splitlines())
    assert not (tmp_path / "sheet.png").exists()


def test_a_failure_is_exit_code_1(
    onetrunk: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Failed("the disk is full; try: free some space")

    monkeypatch.setattr(data, "inspect", fail)
    ran = onetrunk("data", "pocket:digits")
    assert one_line(ran, 1) == "error: the disk is full; try: free some space"


def test_ctrl_c_prints_how_to_continue(
    onetrunk: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "inspect", interrupt)
    ran = onetrunk("data", "pocket:digits")
    assert ran.code == 1
    assert (
        ran.err == "Interrupted. Finished work is kept; run the same command again to continue.\n"
    )


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
    options = ("size", "fit", "task", "image", "group", "split", "sheet", "json", "purge")
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
    assert found["how"] == "70/15/15 by hash of the group"
    assert found["tasks"][0]["classes"] == ["a", "b"]


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
