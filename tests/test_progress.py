"""Progress: nothing for quick work, a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from onetrunk import progress
from onetrunk.progress import Track, say, tracked


class Clock:
    """A clock whose time is set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("onetrunk.progress.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_messages_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    say("waiting")
    assert capsys.readouterr() == ("", "waiting\n")


def test_quick_work_shows_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Track("decoding", 10) as track:
        for _ in range(10):
            clock.now += progress.PATIENCE / 11
            track()
    assert capsys.readouterr() == ("", "")
    assert track.done == 10


def test_slow_work_prints_a_line_every_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Track("decoding", 2000) as track:
        for _ in range(30):
            clock.now += 1
            track(50)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "decoding: 100 of 2,000, about 38 s left",
        "decoding: 600 of 2,000, about 28 s left",
        "decoding: 1,100 of 2,000, about 18 s left",
    ]


def test_a_long_step_shows_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    enough = threading.Event()

    def record(line: str) -> None:
        shown.append(line)
        if len(shown) == 2:
            enough.set()

    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "say", record)
    with Track("solving", 3):
        assert enough.wait(60)  # no step is reported here
    count = len(shown)
    assert set(shown) == {"solving: 0 of 3"}
    with Track("solving", 3) as track:
        pass
    track()  # after the end
    assert len(shown) == count
    assert not any(thread.name.startswith("onetrunk-progress") for thread in threading.enumerate())


def test_things_are_counted_while_they_are_passed_on(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    passed = []
    for thing in tracked("abcdef", "listing"):
        clock.now += 3
        passed.append(thing)
    assert passed == list("abcdef")
    assert capsys.readouterr().err.splitlines() == ["listing: 1 so far", "listing: 5 so far"]
    for _ in tracked(["a", "b"], "listing", 2):
        clock.now += 3
    assert capsys.readouterr().err == "listing: 1 of 2, about 3 s left\n"


def test_a_notebook_without_a_total(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = running(monkeypatch, SimpleNamespace(kernel=object()))
    with Track("listing", None) as track:
        clock.now += 3
        track(7)
    assert [bundle["text/plain"] for bundle in notebook.shown] == ["listing: 7 so far"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_is_removed_at_the_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Track("decoding", 100) as track:
        clock.now += 3
        track(40)
        assert track._bar is not None
        assert track._bar.tasks[0].completed == 40
    assert track._bar.finished is False
    assert "decoding" in terminal.getvalue()


def test_lines_instead_of_a_bar_under_another_display(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    display = Live("training", console=Console(stderr=True), auto_refresh=False)
    with display, Track("evaluating", 100) as track:
        clock.now += 3
        track(40)
        assert track._bar is None
    assert "evaluating: 40 of 100, about 4 s left\n" in terminal.getvalue()


def test_errors_are_passed_on() -> None:
    def fail() -> None:
        with Track("decoding", 10):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()


class Notebook:
    """What a notebook shows: one text per output, which updates replace."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def display(self, bundle: dict[str, str], **options: Any) -> SimpleNamespace:
        assert options == {"raw": True, "display_id": True}
        place = len(self.shown)
        self.shown.append(bundle)

        def update(new: dict[str, str], raw: bool) -> None:
            assert raw
            self.shown[place] = new

        return SimpleNamespace(update=update)


def running(monkeypatch: pytest.MonkeyPatch, shell: object) -> Notebook:
    notebook = Notebook()
    for name, module in {
        "IPython": SimpleNamespace(get_ipython=lambda: shell),
        "IPython.display": SimpleNamespace(display=notebook.display),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return notebook


def test_a_notebook_updates_one_output(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = running(monkeypatch, SimpleNamespace(kernel=object()))
    with Track("reading <a>", 200) as track:
        track(20)
        assert not notebook.shown  # quick work shows nothing
        for _ in range(9):
            clock.now += 1
            track(20)
    assert capsys.readouterr() == ("", "")
    (bundle,) = notebook.shown
    assert bundle["text/plain"].splitlines() == [
        "reading <a>: 200 of 200, about 0 s left",
        "█" * progress.WIDTH,
    ]
    assert bundle["text/html"].startswith("<pre>reading &lt;a&gt;")


@pytest.mark.parametrize("shell", [None, SimpleNamespace()])
def test_ipython_on_a_terminal_is_no_notebook(
    shell: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(monkeypatch, shell)
    assert progress.Cell.current() is None
