"""`onetrunk report`: what it prints, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onetrunk.cli import report as verb
from tests.helpers.verbs import Ran


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What the verb asked for, instead of a report."""
    calls: list[tuple[object, ...]] = []

    def fake(runs: list[Path], baseline: Path | None, out: Path, images: bool) -> Path:
        calls.append((runs, baseline, out, images))
        out.write_text("<!doctype html>")
        return out

    monkeypatch.setattr(verb, "report", fake)
    return calls


def test_it_says_what_it_wrote(
    onetrunk: Callable[..., Ran], asked: list[tuple[object, ...]]
) -> None:
    done = onetrunk("report", "runs/a", "runs/b", "--baseline", "runs/c", "--out", "x.html")
    assert done.code == 0
    assert done.out.startswith("wrote x.html: 0.0 MB\n")
    assert asked == [([Path("runs/a"), Path("runs/b")], Path("runs/c"), Path("x.html"), True)]


def test_as_json_and_without_pictures(
    onetrunk: Callable[..., Ran], asked: list[tuple[object, ...]]
) -> None:
    done = onetrunk("report", "runs/a", "--no-images", "--json")
    assert json.loads(done.out) == {"file": "report.html", "bytes": 15}
    assert asked == [([Path("runs/a")], None, Path("report.html"), False)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("report", "nowhere"), "not the folder of a run"),
        (("report", "nowhere", "--out", "x.pdf"), "one HTML file"),
        (("report",), "Missing argument"),
    ],
)
def test_it_refuses_in_one_line(
    onetrunk: Callable[..., Ran], words: tuple[str, ...], message: str
) -> None:
    done = onetrunk(*words)
    assert done.code == 2
    assert done.err.startswith("error: ") and message in done.err
    assert done.err.count("\n") == 1
