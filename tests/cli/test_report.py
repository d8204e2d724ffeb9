"""`onetrunk report`: what it prints, and the errors of wrong arguments."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onetrunk.cli import report as command_module
from tests.helpers.verbs import Ran


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Record the arguments of reports instead of making them."""
    recorded: list[tuple[object, ...]] = []

    def fake(
        runs: list[Path], baseline: Path | None, out: Path | None, images: bool, floors: str
    ) -> Path:
        recorded.append((runs, baseline, out, images, floors))
        path = Path("report.html") if out is None else out
        path.write_text("<!doctype html>")
        return path

    monkeypatch.setattr(command_module, "report", fake)
    return recorded


def test_the_written_file_is_named(
    onetrunk: Callable[..., Ran], calls: list[tuple[object, ...]]
) -> None:
    done = onetrunk("report", "runs/a", "runs/b", "--baseline", "runs/c", "--out", "x.html")
    assert done.code == 0
    assert done.out.startswith("wrote x.html: 0.0 MB\n")
    assert calls == [
        ([Path("runs/a"), Path("runs/b")], Path("runs/c"), Path("x.html"), True, "auto")
    ]


def test_json_output_without_images(
    onetrunk: Callable[..., Ran], calls: list[tuple[object, ...]]
) -> None:
    done = onetrunk("report", "runs/a", "--no-images", "--floors", "none", "--json")
    assert json.loads(done.out) == {"file": "report.html", "bytes": 15}
    assert calls == [([Path("runs/a")], None, None, False, "none")]


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("report", "nowhere"), "recipe.toml"),
        (("report", "nowhere", "--out", "x.pdf"), "report.html"),
        (("report", "nowhere", "--floors", "some"), "unknown --floors"),
        (("report",), "Missing argument"),
    ],
)
def test_errors_take_one_line(
    onetrunk: Callable[..., Ran], words: tuple[str, ...], fact: str
) -> None:
    done = onetrunk(*words)
    assert done.code == 2
    assert done.err.startswith("error: ") and fact in done.err
    assert done.err.count("\n") == 1
