"""The console logger: a live table on a terminal, few plain lines elsewhere."""

from __future__ import annotations

import io
import re
import sys
import time
from contextlib import redirect_stderr
from typing import Any

import pytest

from onetrunk import progress
from onetrunk.train import console
from onetrunk.train.console import ConsoleLogger, duration, number


class Clock:
    """A clock whose time the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plan(*domains: str, part: str = "", steps: int = 400) -> dict[str, Any]:
    return {"part": part, "steps": steps, "step": 0, "domains": list(domains), "run": "runs/x"}


def line(step: int, *units: str, part: str = "") -> dict[str, Any]:
    return {
        "part": part,
        "step": step,
        "lr": 0.1,
        "loss": dict.fromkeys(units, 0.5),
        "seconds": step / 2,
        "images_per_s": {unit.split("/")[0]: 210.0 for unit in units},
        "left_s": 321.0,
    }


def evaluated(step: int, *units: str, best: bool = True, part: str = "") -> dict[str, Any]:
    val = {f"{unit}/error": 12.345 for unit in units}
    return {"part": part, "step": step, "val": val, "score": 12.345, "best": best}


def test_without_a_terminal_it_prints_a_line_every_ten_seconds_and_each_evaluation(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = ConsoleLogger()
    logger.begin(plan("digits", "shop"))
    units = ("digits/classify", "shop/category", "shop/material")
    for step in range(1, 26):
        clock.now += 1
        logger.log_step(line(step, *units))
    logger.log_evaluation(evaluated(25, *units))
    clock.now += 9
    logger.log_step(line(26, *units))
    logger.log_evaluation(evaluated(26, *units, best=False))
    logger.end()
    logger.end()
    out, err = capsys.readouterr()
    assert out == ""
    loss = "loss digits 0.500, shop category 0.500 material 0.500; 420 images/s; about 5 min 21 s"
    val = "validation digits error 12.35, shop category 12.35 material 12.35; mean 12.35"
    assert err.splitlines() == [
        f"step 10 of 400: {loss} left",
        f"step 20 of 400: {loss} left",
        f"step 25 of 400: {val}, the best so far",
        f"step 26 of 400: {val}",
        "step 26 of 400: end after 13 s; best 12.35 at step 25",
    ]


def test_lines_name_the_part_and_a_new_part_starts_empty(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = ConsoleLogger()
    logger.begin(plan("digits", part="digits", steps=0))
    logger.log_evaluation(evaluated(7, "digits/classify", part="digits"))
    logger.end()
    logger.begin(plan("shop", part="shop"))
    logger.end()
    assert capsys.readouterr().err.splitlines() == [
        "digits: step 7: validation digits error 12.35; mean 12.35, the best so far",
        "digits: step 7: end; best 12.35 at step 7",
        "shop: step 0 of 400: end",
    ]


def test_a_plain_line_names_only_the_first_of_many_domains(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = ConsoleLogger()
    names = [f"d{i}" for i in range(100)]
    logger.begin(plan(*names))
    logger.log_evaluation(evaluated(7, *(f"{name}/classify" for name in names)))
    err = capsys.readouterr().err
    assert "d7 error 12.35, … (100 domains); mean" in err and "d8" not in err


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for key, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "12", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(key, value)
    return Terminal()


def last_frame(terminal: Terminal, lines: int) -> list[str]:
    """The lines of the last frame, without control sequences."""
    text = re.sub(r"\x1b\[[0-9?;]*[a-z]", "", terminal.getvalue().split("\x1b[2K")[-1])
    return [row.rstrip() for row in text.splitlines()][:lines]


def test_on_a_terminal_each_domain_has_a_row(clock: Clock, terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        logger = ConsoleLogger()
        logger.begin(plan("digits", "shop", part="joint"))
        units = ("digits/classify", "shop/category", "shop/material")
        logger.log_step(line(120, *units))
        clock.now += 1
        logger.log_evaluation(evaluated(120, *units))
        logger.end()
    assert last_frame(terminal, 4) == [
        "joint: step 120 of 400 · 5 min 21 s left · best 12.35 at step 120",
        "domain  loss                           validation                     images/s",
        "digits  0.500                          error 12.35                    210",
        "shop    category 0.500 material 0.500  category 12.35 material 12.35  210",
    ]
    assert terminal.getvalue().count("\x1b[?25h") == 1, "the cursor is not shown again"


def test_at_most_ten_updates_a_second(clock: Clock, terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        logger = ConsoleLogger()
        logger.begin(plan("digits"))
        for step in range(2000):
            clock.now += 0.001
            logger.log_step(line(step, "digits/classify"))
            logger.log_evaluation(evaluated(step, "digits/classify"))
        logger.end()
    frames = terminal.getvalue().count("validation")
    assert 15 <= frames <= 23  # two seconds, the first and the last


@pytest.mark.parametrize(("columns", "lines"), [(80, 12), (40, 6), (20, 3), (10, 1), (300, 200)])
def test_the_table_never_exceeds_the_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, columns: int, lines: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(lines))
    with redirect_stderr(terminal):
        logger = ConsoleLogger()
        names = [f"domain-{i}" + "-long" * 10 for i in range(100)]
        logger.begin(plan(*names))
        logger.log_step(line(1, *(f"{name}/classify" for name in names)))
        logger.log_evaluation(evaluated(1, *(f"{name}/classify" for name in names)))
        logger.end()
    rows = last_frame(terminal, 1000)
    assert all(len(row) <= columns for row in rows)
    shown = min(100, max(1, lines - 4))
    if lines > 3:
        assert sum("domain-" in row for row in rows) == shown
    if shown < 100 and lines > 3:
        assert rows[-1] == f"… and {100 - shown} more domains"[:columns]
    if columns >= 40 and lines > 3:
        assert "0.500" in rows[2] and "12.35" in rows[2]
        assert ("images/s" in rows[1]) == (columns >= console.NARROW)


def test_a_line_printed_in_between_is_not_lost(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        logger = ConsoleLogger()
        logger.begin(plan("digits"))
        print("a note", file=sys.stderr)
        logger.end()
        assert sys.stderr is terminal
    assert "a note" in terminal.getvalue()


def test_a_dumb_terminal_gets_plain_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with redirect_stderr(terminal):
        logger = ConsoleLogger()
        logger.begin(plan("digits"))
        logger.log_step(line(1, "digits/classify"))
        logger.end()
    assert terminal.getvalue() == "step 1 of 400: end after 0 s\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (18600, "5 h 10 min")],
)
def test_durations_are_rounded(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_are_rounded() -> None:
    values = (None, 0.12345, 9.9994, 12.345, 12345.6, float("nan"))
    assert [number(v) for v in values] == ["–", "0.123", "9.999", "12.35", "12,345.60", "nan"]


class FakeCell:
    """An output of a notebook."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def show(self, text: str) -> None:
        self.texts.append(text)


def test_a_notebook_shows_all_domains_in_one_output(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = FakeCell()
    monkeypatch.setattr(progress.Cell, "current", lambda: cell)
    names = [f"d{i}" for i in range(40)]
    logger = ConsoleLogger()
    logger.begin(plan(*names))
    for step in range(1, 6):
        clock.now += console.REFRESH / 2  # updates are not faster than REFRESH
        logger.log_step(line(step, *(f"{name}/classify" for name in names)))
    logger.log_evaluation(evaluated(5, *(f"{name}/classify" for name in names)))
    logger.end()
    assert capsys.readouterr() == ("", "")
    assert 3 <= len(cell.texts) <= 5
    last = cell.texts[-1]
    assert last.startswith("step 5 of 400")
    assert all(re.search(rf"^{name} .*0\.500 .*12\.35", last, re.MULTILINE) for name in names)
    assert "\x1b" not in last
