"""Checkpoints: whole or not there, whatever ends the writer; never the only good one removed."""

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
from pathlib import Path
from typing import Any

import pytest
import torch

from onetrunk.errors import BadInput, Failed
from onetrunk.store.run_folder import RunFolder

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
    """This is the newest, and every tensor and the state are of this step."""
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


def test_a_step_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        save(run, 9)
        save(run, 10)
        assert run.at("", 9).state["half"] == 4.5
        with pytest.raises(BadInput, match=r"got: 'step 11'; available: 9, 10"):
            run.at("", 11)


def test_a_step_saved_again_is_the_new_one(tmp_path: Path) -> None:
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


DAMAGES: dict[str, Callable[[Path], object]] = {
    "tensors cut": lambda p: os.truncate(p / "tensors.safetensors", 100),
    "tensors empty": lambda p: os.truncate(p / "tensors.safetensors", 0),
    "tensors gone": lambda p: (p / "tensors.safetensors").unlink(),
    "a bit of the tensors": lambda p: flip(p / "tensors.safetensors"),
    "state cut": lambda p: os.truncate(p / "state.json", 20),
    "state gone": lambda p: (p / "state.json").unlink(),
    "state of no sense": lambda p: (p / "state.json").write_text("[1]"),
    "state lacks keys": lambda p: (p / "state.json").write_text("{}"),
    "state not text": lambda p: (p / "state.json").write_bytes(b"\xff\xfe\x00"),
    "both gone": lambda p: [f.unlink() for f in p.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_named_and_the_one_before_is_taken(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        for step in (1, 2, 3):
            save(run, step)
        DAMAGES[damage](tmp_path / "checkpoints/step-3")
        check(run, 2)
        (line,) = capsys.readouterr().err.splitlines()
        assert "step-3 is damaged" in line and line.endswith("the one before it is taken")
        with pytest.raises(BadInput, match="step-3 is damaged"):
            run.at("", 3)
        run.prune("", keep=1)  # keeps the damaged newest, and so the newest whole one too
        assert run.steps() == [2, 3]
        save(run, 3)  # the run comes by there again
        check(run, 3)
        run.prune("", keep=1)
        assert run.steps() == [3]


def test_with_all_damaged_there_is_none(tmp_path: Path) -> None:
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
def test_pruning_keeps_the_last_and_those_asked_for(
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


def test_pruning_never_removes_the_only_whole_one(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        for step in range(1, 7):
            save(run, step)
        for step in (2, 4, 5, 6):
            DAMAGES["a bit of the tensors"](tmp_path / f"checkpoints/step-{step}")
        run.prune("", 2, (2,))
        assert run.steps() == [2, 3, 5, 6]
        check(run, 3)


def test_what_killed_writers_left_is_put_right_when_the_run_is_opened(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    with RunFolder.open(tmp_path, RECIPE) as run:
        for step in (1, 2):
            save(run, step)
            save(run, step, "digits")
    os.rename(place / "step-2", place / ".step-2.old")  # killed between two renames
    (place / ".step-3.0a1b2c3d.part").mkdir()
    (place / "digits/.step-1.0a1b2c3d.gone").mkdir()
    (place / "digits/.step-2.old").mkdir()  # killed before the old one was removed
    with RunFolder.open(tmp_path, RECIPE, resume=True) as run:
        check(run, 2)
        check(run, 2, "digits")
    assert folders(place) == ["digits", "step-1", "step-2"]
    assert folders(place / "digits") == ["step-1", "step-2"]


def test_a_checkpoint_that_is_half_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        for step in (1, 2, 3):
            save(run, step)
        monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed before any was gone
        run.prune("", 1)
        save(run, 3)
        monkeypatch.undo()
        assert run.steps() == [3]
        assert len(folders(tmp_path / "checkpoints")) == 4
    with RunFolder.open(tmp_path, RECIPE, resume=True) as run:
        check(run, 3)
    assert folders(tmp_path / "checkpoints") == ["step-3"]


class Disk:
    """Counts what is asked of the disk, and has no room at one of these calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, full_at: int) -> None:
        self.calls: list[str] = []
        self.full_at = full_at
        for name in ("fsync", "rename", "mkdir"):
            monkeypatch.setattr(os, name, self.counted(name, getattr(os, name)))
        monkeypatch.setattr(io, "open", self.counted("open", io.open))

    def asked(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) == self.full_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    def counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if name == "open" and "x" not in args[1]:
                return real(*args, **more)
            self.asked(name)
            return Halved(self, real(*args, **more)) if name == "open" else real(*args, **more)

        return call


class Halved:
    """A file; when the disk is full, half of what is written arrives."""

    def __init__(self, disk: Disk, file: Any) -> None:
        self.disk, self.file = disk, file

    def write(self, data: bytes) -> int:
        try:
            self.disk.asked("write")
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
    """What it failed with, in words; nothing if it did not."""
    try:
        act()
    except Failed as error:
        return str(error)
    return ""


@pytest.mark.parametrize("again", [False, True], ids=["a new step", "a step that is there"])
def test_a_full_disk_at_any_moment_leaves_the_last_checkpoint_and_nothing_else(
    tmp_path: Path, again: bool
) -> None:
    step, at, calls = 1 if again else 2, 0, []
    while True:
        at += 1
        place = tmp_path / str(at)
        with RunFolder.open(place, RECIPE) as run, pytest.MonkeyPatch.context() as monkeypatch:
            save(run, 1)
            disk = Disk(monkeypatch, at)
            error = fails(lambda run=run: run.save("", step, tensors_of(step), {"half": step / 2}))
            if len(disk.calls) < at:
                assert error == ""
                break
            monkeypatch.undo()
            assert "\n" not in error and "--resume" in error
            assert error.startswith(f"cannot write the checkpoint of step {step}: the disk is full")
            calls.append(disk.calls[-1])
            check(run, max(run.steps()))
            left = [name for name in folders(place / "checkpoints") if name.startswith(".")]
            # a new one in its place whose rename may not last yet: the old one waits
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
def test_the_system_itself_stops_a_write_in_its_middle(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMIT, str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *failed, files, good, line = done.stdout.splitlines()
    whats = ("the checkpoint of step 2", "the checkpoint of step 1", "metrics.jsonl", "scores.json")
    assert len(failed) == 4
    for text, what in zip(failed, whats, strict=True):
        assert text.startswith(f"cannot write {what}: File too large; what was finished in ")
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
        pytest.skip("this system lets nobody mount")
    shell = f"{mount} && {sys.executable} {script} {tmp_path}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", shell], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    error, *facts = done.stdout.splitlines()
    assert "the disk is full" in error and "try: free some space" in error
    assert facts == ["True True True", "True", "True"]


def writer(place: Path, told: int) -> None:
    """Saves steps for ever, each third one twice, and tells each that is saved."""
    with RunFolder.open(place, RECIPE, resume=True) as run:
        saved = run.last()
        run.rewind(saved)
        step = saved.step if saved else 0
        os.write(told, b"0\n")
        while True:
            step += 1
            save(run, step, size=50_000)
            os.write(told, f"{step}\n".encode())
            if step % 3 == 0:
                run.save("", step, tensors_of(step, 50_000), {"half": step / 2})
            run.prune("", 2)


@needs_fork
def test_killed_at_any_instant_the_last_checkpoint_is_whole(tmp_path: Path) -> None:
    chance = random.Random(3)
    place, finished = tmp_path / "run", 0
    for _ in range(KILLS):
        read, told = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(read)
                writer(place, told)
            finally:
                os._exit(1)
        os.close(told)
        with os.fdopen(read) as heard:
            assert heard.readline() == "0\n", "the writer did not start"
            for _ in range(chance.randrange(3)):
                finished = int(heard.readline())
            time.sleep(chance.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            assert os.WTERMSIG(status) == signal.SIGKILL, "the writer ended by itself"
            finished = max([finished, *(int(line) for line in heard if line.endswith("\n"))])
        with RunFolder.open(place, RECIPE, resume=True) as run:
            saved = run.last()
            step = saved.step if saved else 0
            assert step >= finished, "a checkpoint that was finished is lost"
            if saved:
                check(run, step)
                assert [run.at("", i).step for i in run.steps()][-1] == step, "one is damaged"
            run.rewind(saved)
            lines = (place / "metrics.jsonl").read_text().splitlines()
            assert lines == [f'{{"step": {i}, "part": ""}}' for i in range(1, step + 1)]
            if saved:
                assert all(not name.startswith(".") for name in folders(place / "checkpoints"))
    assert finished > KILLS / 2, "the writer hardly came to write"
