"""Signals: the first one stops after a step, a second Ctrl-C at once; handlers are restored."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

import pytest

from onetrunk.train import interrupt as module
from onetrunk.train.interrupt import stoppable

BOTH = (signal.SIGINT, signal.SIGTERM)


def send(number: int) -> None:
    signal.raise_signal(number)


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_requests_a_stop(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    with stoppable() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
    assert "stopping after this step" in capsys.readouterr().err


def test_a_second_ctrl_c_raises_and_a_second_sigterm_does_not() -> None:
    with stoppable() as stop:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    with stoppable():
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_handlers_are_restored() -> None:
    received: list[int] = []
    before = {number: signal.signal(number, lambda n, _: received.append(n)) for number in BOTH}
    try:
        with suppress(ZeroDivisionError), stoppable():
            send(signal.SIGTERM)
            raise ZeroDivisionError
        assert not received
        for number in BOTH:
            send(number)
        assert received == list(BOTH)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_other_threads_install_no_handlers() -> None:
    before = {number: signal.getsignal(number) for number in BOTH}
    found: list[bool] = []

    def learn() -> None:
        with stoppable() as stop:
            found.append(stop.requested)
            found.append({number: signal.getsignal(number) for number in BOTH} == before)

    thread = threading.Thread(target=learn)
    thread.start()
    thread.join()
    assert found == [False, True]


@pytest.mark.parametrize("error", [RuntimeError("reentrant call"), OSError("closed")], ids=str)
def test_a_signal_counts_even_if_its_message_cannot_be_printed(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_: str) -> None:  # a write inside a write to standard error
        raise error

    monkeypatch.setattr(module, "say", busy)
    with stoppable() as stop:
        send(signal.SIGTERM)
        assert stop.requested
