"""The command line in processes that are killed: forked from one that has imported everything.

A process costs its fork, not the seconds that importing takes, and does what `onetrunk` does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onetrunk

WALL = ("seconds", "images_per_s", "left_s", "finished", "since")  # fields that tell the time
PATIENCE = 120.0  # seconds for anything that a tiny run does
SRC = Path(onetrunk.__file__).parents[1]

SERVER = """
import ctypes, json, os, sys, signal
import onetrunk, onetrunk.cli, onetrunk.runs.train, torch, torchmetrics, timm, safetensors.torch
sys.stdout.write("ready\\n"); sys.stdout.flush()
for line in sys.stdin:
    words, log = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()  # a group of its own: what a terminal sends reaches its workers too
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # a run does not outlive its server
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, 1); os.dup2(file, 2)
        sys.argv = ["onetrunk", *words]
        code = 1
        try:
            onetrunk.cli.main()
        except SystemExit as exit:
            code = exit.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)
    sys.stdout.write(f"{child}\\n"); sys.stdout.flush()
    _, status = os.waitpid(child, 0)
    sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\\n"); sys.stdout.flush()
"""


class Server:
    """`code, text = Server(folder, threads=1).run("train", …)`; paths start at `folder`."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.log = folder / "said.txt"
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        env["OMP_WAIT_POLICY"] = (
            "passive"  # threads that spin for a busy core take many times longer
        )
        env |= {"ONETRUNK_CACHE": str(folder.parent / "cache"), "PYTHONPATH": str(SRC)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=folder,
        )
        assert self._hear() == "ready"

    def run(self, *words: str, then: Callable[[int], None] | None = None) -> tuple[int, str]:
        """The exit code (of a signal: negative) and all that was said; `then` gets the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([words, str(self.log)]) + "\n")
        self._process.stdin.flush()
        child = int(self._hear())
        if then is not None:
            then(child)
        return int(self._hear()), self.log.read_text(encoding="utf-8", errors="replace")

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """The server goes, and with it whatever it waits for."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def lines(run: Path) -> int:
    """Of metrics.jsonl, as they are now."""
    try:
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def gone(child: int) -> bool:
    """Whether the process has ended (its parent takes its code at once)."""
    try:
        os.kill(child, 0)
    except ProcessLookupError:
        return True
    return False


def signal_when(
    ready: Callable[[], bool], delay: float, number: int = signal.SIGKILL
) -> Callable[[int], None]:
    """Send it `delay` seconds after `ready`; nothing if the process ends before.

    Ctrl-C goes to the process and its workers, as a terminal sends it.
    """

    def act(child: int) -> None:
        until = time.monotonic() + PATIENCE
        while not ready() and not gone(child) and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(delay)
        if not gone(child):
            (os.killpg if number == signal.SIGINT else os.kill)(child, number)

    return act


def without_clock(value: Any) -> Any:
    """A document without the fields that tell the time."""
    if isinstance(value, dict):
        return {key: without_clock(inner) for key, inner in value.items() if key not in WALL}
    if isinstance(value, list):
        return [without_clock(inner) for inner in value]
    return value


def outcome(run: Path) -> dict[str, Any]:
    """All that a finished run is: what two runs of one recipe have to have in common."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if not path.is_file() or name in (".lock", "recipe.toml"):
            continue
        if name == "metrics.jsonl":
            text = path.read_text(encoding="utf-8")
            found[name] = [without_clock(json.loads(line)) for line in text.splitlines()]
        elif path.suffix == ".json":
            document = without_clock(json.loads(path.read_bytes()))
            # its length is that of lines with times in them
            found[name] = {k: v for k, v in document.items() if k not in ("metrics_bytes", "clock")}
        else:
            found[name] = path.read_bytes()
    return found
