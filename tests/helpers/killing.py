"""Run the command line in processes that tests kill.

They are forked from a server that has imported everything, which saves the seconds of importing.
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

WALL = ("seconds", "images_per_s", "left_s", "finished", "since")  # fields that hold times
PATIENCE = 120.0  # seconds for any step of a tiny run
SRC = Path(onetrunk.__file__).parents[1]

SERVER = """
import ctypes, json, os, sys, signal
import onetrunk, onetrunk.cli, onetrunk.runs.train, torch, torchmetrics, timm, safetensors.torch
sys.stdout.write("ready\\n"); sys.stdout.flush()
for line in sys.stdin:
    words, log = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()  # a new process group, so that SIGINT can be sent to its workers too
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # killed with the server
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
        self.log = folder / "output.txt"
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        # spinning threads are many times slower on a busy machine
        env["OMP_WAIT_POLICY"] = "passive"
        env |= {"ONETRUNK_CACHE": str(folder.parent / "cache"), "PYTHONPATH": str(SRC)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=folder,
        )
        assert self._read() == "ready"

    def run(self, *words: str, then: Callable[[int], None] | None = None) -> tuple[int, str]:
        """Run a command; return its exit code (negative: a signal) and its output.

        Args:
            words: The arguments of `onetrunk`.
            then: Called with the process id.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([words, str(self.log)]) + "\n")
        self._process.stdin.flush()
        child = int(self._read())
        if then is not None:
            then(child)
        return int(self._read()), self.log.read_text(encoding="utf-8", errors="replace")

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """Kill the server, and with it the command that it waits for."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def lines(run: Path) -> int:
    """The current number of lines of metrics.jsonl."""
    try:
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def has_lines(run: Path, count: int) -> bool:
    """Whether metrics.jsonl has at least this number of lines."""
    return lines(run) >= count


def gone(child: int) -> bool:
    """Whether the process has ended (the server waits for it, so it leaves no zombie)."""
    try:
        os.kill(child, 0)
    except ProcessLookupError:
        return True
    return False


def signal_when(
    ready: Callable[[], bool], delay: float, number: int = signal.SIGKILL
) -> Callable[[int], None]:
    """Return a function that sends a signal `delay` seconds after `ready`.

    SIGINT goes to the process and its workers, as a terminal sends it. Nothing is sent to a process
    that has ended.
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
    """Remove the fields that hold times from a document."""
    if isinstance(value, dict):
        return {key: without_clock(inner) for key, inner in value.items() if key not in WALL}
    if isinstance(value, list):
        return [without_clock(inner) for inner in value]
    return value


def outcome(run: Path) -> dict[str, Any]:
    """The contents of a finished run that two runs of one recipe must have in common."""
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
            # the length of metrics.jsonl depends on the times in it
            found[name] = {k: v for k, v in document.items() if k not in ("metrics_bytes", "clock")}
        else:
            found[name] = path.read_bytes()
    return found
