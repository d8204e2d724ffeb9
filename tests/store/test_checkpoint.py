"""Checkpoints are complete or absent, however their writer ends, and one intact one is kept."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from onetrunk.errors import BadInput, Failed
from onetrunk.store.run_folder import RunFolder
from tests.helpers.errors import raises

RECIPE = 'name = "shop"\n'
KILLS = 20
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def tensors_of(step: int, size: int = 1000) -> dict[str, torch.Tensor]:
    return {
        "weight": torch.full((size,), float(step)),
        "half": torch.full((7,), step % 2, dtype=torch.bfloat16),
        "count": torch.tensor(step),
    }


def save(run: RunFolder, step: int, part: str = "", size: int = 1000) -> None:
    run.log({"step": step, "part": part})
    run.save(part, step, tensors_of(step, size), {"half": step / 2})


def check(run: RunFolder, step: int, part: str = "") -> None:
    """Check that the newest checkpoint is of this step, with its tensors and its state."""
    saved = run.last(part)
    assert saved is not None and saved.step == step
    assert saved.state["half"] == step / 2
    tensors = saved.tensors()
    assert tensors.keys() == tensors_of(0).keys()
    for name, tensor in tensors_of(step, tensors["weight"].numel()).items():
        assert torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype


def folders(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_the_newest_is_last_and_each_part_has_its_own(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        for step in (9, 10, 100):
            save(run, step)
        save(run, 30, "digits")
        assert run.steps() == [9, 10, 100]
        save(run, 40, "step-7")  # a specialist may have this name
        assert run.steps() == [9, 10, 100]
        check(run, 100)
        run.prune("", 1)
        assert run.steps() == [100]
    with RunFolder.open(tmp_path, RECIPE, resume=True) as run:
        check(run, 30, "digits")
        check(run, 40, "step-7")


def test_a_missing_step_is_refused(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        save(run, 9)
        save(run, 10)
        assert run.at("", 9).state["half"] == 4.5
        with raises(BadInput, "checkpoints", got="step 11", available=[9, 10]):
            run.at("", 11)


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        save(run, 5)
        run.save("", 5, tensors_of(6), {"half": 2.5})
        saved = run.last()
        assert saved is not None and saved.tensors()["count"] == 6
        assert folders(tmp_path / "checkpoints") == ["step-5"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def delete_contents(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "tensors cut": lambda p: os.truncate(p / "tensors.safetensors", 100),
    "tensors empty": lambda p: os.truncate(p / "tensors.safetensors", 0),
    "tensors gone": lambda p: (p / "tensors.safetensors").unlink(),
    "a bit of the tensors": lambda p: flip(p / "tensors.safetensors"),
    "state cut": lambda p: os.truncate(p / "state.json", 20),
    "state gone": lambda p: (p / "state.json").unlink(),
    "state not a table": lambda p: (p / "state.json").write_text("[1]"),
    "state lacks keys": lambda p: (p / "state.json").write_text("{}"),
    "state not text": lambda p: (p / "state.json").write_bytes(b"\xff\xfe\x00"),
    "both gone": delete_contents,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_named_and_the_one_before_is_used(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        for step in (1, 2, 3):
            save(run, step)
        DAMAGES[damage](tmp_path / "checkpoints/step-3")
        check(run, 2)
        (line,) = capsys.readouterr().err.splitlines()
        assert "step-3" in line
        with raises(BadInput, str(tmp_path / "checkpoints/step-3")):
            run.at("", 3)
        run.prune("", keep=1)  # keeps the damaged newest, and the newest intact one too
        assert run.steps() == [2, 3]
        save(run, 3)  # the run reaches the step again
        check(run, 3)
        run.prune("", keep=1)
        assert run.steps() == [3]


def test_without_an_intact_checkpoint_there_is_no_last(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        save(run, 1)
        DAMAGES["tensors cut"](tmp_path / "checkpoints/step-1")
        assert run.last() is None
        run.prune("", keep=1)
        assert run.steps() == [1]


@pytest.mark.parametrize(
    ("keep", "also", "left"),
    [
        (2, (), [4, 5]),
        (1, (2,), [2, 5]),
        (9, (), [1, 2, 3, 4, 5]),
        (0, (), [5]),
        (0, (3,), [3]),
        (1, (77,), [5]),
    ],
)
def test_pruning_keeps_the_last_and_the_requested_ones(
    tmp_path: Path, keep: int, also: tuple[int, ...], left: list[int]
) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        for step in range(1, 6):
            save(run, step)
        save(run, 1, "digits")
        run.prune("", keep, also)
        assert run.steps() == left
        assert run.steps("digits") == [1]
        (tmp_path / "checkpoints/.step-7.0a1b2c3d.part").mkdir()
        (tmp_path / "checkpoints/mine").mkdir()
        run.prune("", 1, left)
        assert folders(tmp_path / "checkpoints") == sorted(
            ["digits", "mine", *(f"step-{step}" for step in left)]
        )


def test_pruning_keeps_an_intact_one(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        for step in range(1, 7):
            save(run, step)
        for step in (2, 4, 5, 6):
            DAMAGES["a bit of the tensors"](tmp_path / f"checkpoints/step-{step}")
        run.prune("", 2, (2,))
        assert run.steps() == [2, 3, 5, 6]
        check(run, 3)


def test_opening_a_run_clears_up_after_killed_writers(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    with RunFolder.open(tmp_path, RECIPE) as run:
        for step in (1, 2):
            save(run, step)
            save(run, step, "digits")
    os.rename(place / "step-2", place / ".step-2.old")  # killed between two renames
    (place / ".step-3.0a1b2c3d.part").mkdir()
    (place / "digits/.step-1.0a1b2c3d.part").mkdir()
    (place / "digits/.step-2.old").mkdir()  # killed before the old one was removed
    with RunFolder.open(tmp_path, RECIPE, resume=True) as run:
        check(run, 2)
        check(run, 2, "digits")
    assert folders(place) == ["digits", "step-1", "step-2"]
    assert folders(place / "digits") == ["step-1", "step-2"]


def test_a_half_removed_checkpoint_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        for step in (1, 2, 3):
            save(run, step)
        monkeypatch.setattr(
            "shutil.rmtree", lambda *_, **__: None
        )  # killed before anything was removed
        run.prune("", 1)
        save(run, 3)
        monkeypatch.undo()
        assert run.steps() == [3]
        assert len(folders(tmp_path / "checkpoints")) == 4
    with RunFolder.open(tmp_path, RECIPE, resume=True) as run:
        check(run, 3)
    assert folders(tmp_path / "checkpoints") == ["step-3"]


class Disk:
    """Counts the calls to the disk and is full at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, full_at: int) -> None:
        self.calls: list[str] = []
        self.full_at = full_at
        for name in ("fsync", "rename", "mkdir"):
            monkeypatch.setattr(os, name, self.counted(name, getattr(os, name)))
        monkeypatch.setattr(io, "open", self.counted("open", io.open))

    def count(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) == self.full_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    def counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if name == "open" and "x" not in args[1]:
                return real(*args, **more)
            self.count(name)
            return Halved(self, real(*args, **more)) if name == "open" else real(*args, **more)

        return call


class Halved:
    """A file that takes half of what is written when the disk is full."""

    def __init__(self, disk: Disk, file: Any) -> None:
        self.disk, self.file = disk, file

    def write(self, data: bytes) -> int:
        try:
            self.disk.count("write")
        except OSError:
            self.file.write(data[: len(data) // 2])
            raise
        return int(self.file.write(data))

    def __enter__(self) -> Halved:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def fails(act: Callable[[], object]) -> str:
    """Return the message of the failure, or "" without one."""
    try:
        act()
    except Failed as error:
        return str(error)
    return ""


@pytest.mark.parametrize("again", [False, True], ids=["a new step", "an existing step"])
def test_a_full_disk_at_any_call_leaves_the_last_checkpoint_and_nothing_else(
    tmp_path: Path, again: bool
) -> None:
    step, at, calls = 1 if again else 2, 0, []
    while True:
        at += 1
        place = tmp_path / str(at)
        with RunFolder.open(place, RECIPE) as run, pytest.MonkeyPatch.context() as monkeypatch:
            save(run, 1)
            disk = Disk(monkeypatch, at)
            error = fails(partial(run.save, "", step, tensors_of(step), {"half": step / 2}))
            if len(disk.calls) < at:
                assert error == ""
                break
            monkeypatch.undo()
            assert "\n" not in error and "--resume" in error
            assert f"checkpoint of step {step}: the disk is full" in error
            calls.append(disk.calls[-1])
            check(run, max(run.steps()))
            left = [name for name in folders(place / "checkpoints") if name.startswith(".")]
            # the new one is in place, but its rename may not be durable yet: the old one is kept
            assert left == [] or (again and left == [".step-1.old"] and disk.full_at == at)
            save(run, step)  # there is room again
            check(run, step)
            run.prune("", 9)
            assert folders(place / "checkpoints") == [f"step-{s}" for s in range(1, step + 1)]
    assert {"fsync", "rename", "mkdir", "open", "write"} <= set(calls)
    assert len(calls) >= 13


LIMIT = """
import resource, sys, torch
from onetrunk.errors import Failed
from onetrunk.store.run_folder import RunFolder
with RunFolder.open(sys.argv[1], "") as run:
    run.log({"step": 1})
    run.save("", 1, {"a": torch.ones(1000)}, {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    for act in (
        lambda: run.save("", 2, {"a": torch.ones(2000)}, {}),
        lambda: run.save("", 1, {"a": torch.ones(2000)}, {}),
        lambda: run.log({"text": "x" * 6000}),
        lambda: run.write("scores.json", {"text": "x" * 6000}),
    ):
        try:
            act()
        except Failed as error:
            print(error)
    print(sorted(str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()))
    print(run.last().tensors()["a"].sum().item(), run.finished)
    print((run.path / "metrics.jsonl").read_text(), end="")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on files")
def test_a_write_that_the_system_stops_halfway(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMIT, str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *failed, files, good, line = done.stdout.splitlines()
    whats = ("the checkpoint of step 2", "the checkpoint of step 1", "metrics.jsonl", "scores.json")
    assert len(failed) == 4
    for text, what in zip(failed, whats, strict=True):
        assert f"{what}: File too large" in text
    assert files == str(
        [
            ".lock",
            "checkpoints/step-1/state.json",
            "checkpoints/step-1/tensors.safetensors",
            "metrics.jsonl",
            "recipe.toml",
        ]
    )
    assert (good, line) == ("1000.0 False", '{"step": 1}')


FILL = """
import sys, torch
from onetrunk.errors import Failed
from onetrunk.store.run_folder import RunFolder
with RunFolder.open(sys.argv[1] + "/run", "") as run:
    step = 0
    try:
        while True:
            run.log({"step": step + 1})
            run.save("", step + 1, {"a": torch.full((30_000,), float(step + 1))}, {})
            step += 1
    except Failed as error:
        print(error)
    saved = run.last()
    print(saved.step == step, bool((saved.tensors()["a"] == step).all()), run.steps()[-1] == step)
    print(all(path.name.startswith("step-") for path in (run.path / "checkpoints").iterdir()))
    run.prune("", 1)
    run.rewind(saved)
    run.log({"step": step + 1})
    run.save("", step + 1, {"a": torch.full((30_000,), 0.0)}, {})
    print(run.last().step == step + 1)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or not Path("/proc/mounts").exists(),
    reason="needs to mount a small disk",
)
def test_a_real_disk_that_is_full(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"
    script = tmp_path.with_name("fill.py")
    script.write_text(FILL)
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    shell = f"{mount} && {sys.executable} {script} {tmp_path}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", shell], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    error, *facts = done.stdout.splitlines()
    assert "the disk is full" in error and "try: free some space" in error
    assert facts == ["True True True", "True", "True"]


def writer(place: Path, pipe: int) -> None:
    """Save steps until killed, each third one twice, and report each through the pipe."""
    with RunFolder.open(place, RECIPE, resume=True) as run:
        saved = run.last()
        run.rewind(saved)
        step = saved.step if saved else 0
        os.write(pipe, b"0\n")
        while True:
            step += 1
            save(run, step, size=50_000)
            os.write(pipe, f"{step}\n".encode())
            if step % 3 == 0:
                run.save("", step, tensors_of(step, 50_000), {"half": step / 2})
            run.prune("", 2)


@needs_fork
def test_after_a_kill_at_any_instant_the_last_checkpoint_is_intact(tmp_path: Path) -> None:
    chance = random.Random(3)
    place, finished = tmp_path / "run", 0
    for _ in range(KILLS):
        read, pipe = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(read)
                writer(place, pipe)
            finally:
                os._exit(1)
        os.close(pipe)
        with os.fdopen(read) as reports:
            assert reports.readline() == "0\n", "the writer did not start"
            for _ in range(chance.randrange(3)):
                finished = int(reports.readline())
            time.sleep(chance.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            assert os.WTERMSIG(status) == signal.SIGKILL, "the writer ended by itself"
            finished = max([finished, *(int(line) for line in reports if line.endswith("\n"))])
        with RunFolder.open(place, RECIPE, resume=True) as run:
            saved = run.last()
            step = saved.step if saved else 0
            assert step >= finished, "a finished checkpoint is lost"
            if saved:
                check(run, step)
                assert [run.at("", i).step for i in run.steps()][-1] == step, "one is damaged"
            run.rewind(saved)
            lines = (place / "metrics.jsonl").read_text().splitlines()
            assert lines == [f'{{"step": {i}, "part": ""}}' for i in range(1, step + 1)]
            if saved:
                assert all(not name.startswith(".") for name in folders(place / "checkpoints"))
    assert finished > KILLS / 2, "the writer hardly wrote anything"
