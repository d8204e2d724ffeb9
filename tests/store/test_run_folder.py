"""The folder of a run: one writer, one recipe, atomic files, metrics cut where a run resumes."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from onetrunk.errors import BadInput, Failed
from onetrunk.store.run_folder import RunFolder
from tests.helpers.errors import raises

RECIPE = 'name = "shop"\nseed = 0\n\n[train]\nsteps = 400\n'
TENSORS = {"a": torch.arange(6.0).reshape(2, 3)}


def test_a_run_starts_resumes_and_finishes(tmp_path: Path) -> None:
    place = tmp_path / "runs/shop"
    with RunFolder.open(place, RECIPE) as run:
        assert (place / "recipe.toml").read_text() == RECIPE
        assert run.last() is None and run.steps() == [] and not run.finished
        run.log({"step": 1, "loss": {"digits": 0.1}})
        assert run.save("", 1, TENSORS, {"lr": 0.1}) == place / "checkpoints/step-1"
        run.log({"step": 2})
        run.write("environment.json", {"seed": 0})
    with RunFolder.open(place, RECIPE, resume=True) as run:
        saved = run.last()
        assert saved is not None and (saved.step, saved.state["lr"]) == (1, 0.1)
        assert torch.equal(saved.tensors()["a"], TENSORS["a"])
        run.rewind(saved)
        assert (place / "metrics.jsonl").read_text() == '{"step": 1, "loss": {"digits": 0.1}}\n'
        run.log({"step": 2, "again": True})
        assert run.finish({"format": 1}) == place / "scores.json"
        assert run.finished
    lines = (place / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert json.loads((place / "environment.json").read_text()) == {"seed": 0}


def test_resuming_a_missing_run_starts_it(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", RECIPE, resume=True) as run:
        assert run.last() is None
        assert (run.path / "recipe.toml").read_text() == RECIPE


def test_an_existing_run_is_not_started_again(tmp_path: Path) -> None:
    place = tmp_path / "a run"
    with RunFolder.open(place, RECIPE) as run:
        run.save("", 20, TENSORS, {})
        run.save("digits", 100, TENSORS, {})
    with raises(BadInput, "step 100", try_="onetrunk train") as error:
        RunFolder.open(place, RECIPE)
    assert str(error.value.try_).endswith("--resume")
    with RunFolder.open(place, RECIPE, resume=True) as run:
        run.finish({})
    with raises(BadInput, place, try_="onetrunk eval ") as error:
        RunFolder.open(place, RECIPE)
    if os.name != "nt":
        assert f"'{place}'" in str(error.value.try_)  # quoted, because of the space
    RunFolder.open(place, RECIPE, resume=True).close()


@pytest.mark.parametrize("resume", [False, True])
def test_another_recipe_is_refused_with_the_keys_that_differ(tmp_path: Path, resume: bool) -> None:
    RunFolder.open(tmp_path, RECIPE).close()
    with raises(BadInput, tmp_path, "train.steps (was 400, is 500)"):
        RunFolder.open(tmp_path, RECIPE.replace("400", "500"), resume=resume)
    assert (tmp_path / "recipe.toml").read_text() == RECIPE
    RunFolder.open(tmp_path, RECIPE, resume=True).close()  # the refused one holds no lock


def test_a_recipe_with_other_comments_is_the_same(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, RECIPE).close()
    RunFolder.open(tmp_path, "# mine\n" + RECIPE, resume=True).close()
    assert (tmp_path / "recipe.toml").read_text() == RECIPE


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_other_files_is_refused_and_left_as_it_is(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with raises(BadInput, tmp_path, "thesis.tex", try_="an empty folder"):
        RunFolder.open(tmp_path, RECIPE, resume=resume)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with raises(BadInput, tmp_path / "thesis.tex", try_="another"):
        RunFolder.open(tmp_path / "thesis.tex", RECIPE)


def fail(
    path: Path,
    error: type[BaseException],
    before: Callable[[RunFolder], object],
    resume: bool = False,
) -> None:
    """Open a run that ends with an error."""

    def run() -> None:
        with RunFolder.open(path, RECIPE, resume=resume) as opened:
            before(opened)
            raise error("stop")

    with pytest.raises(error):
        run()


def test_a_run_that_fails_before_its_first_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new/er/run"

    def start(run: RunFolder) -> None:
        run.write("environment.json", {})
        run.rewind(None)

    for error in (BadInput, KeyboardInterrupt, ZeroDivisionError):
        fail(path, error, start)
        assert list(tmp_path.iterdir()) == []
    # the message of `Failed` names the command that continues the run
    fail(path, Failed, start)
    assert (path / "recipe.toml").exists()
    fail(path, KeyboardInterrupt, start, resume=True)  # this object has not started the run
    assert (path / "recipe.toml").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the lock's file cannot be removed")
def test_the_lock_is_removed_before_another_process_can_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, held = RunFolder.close, []

    def record(run: RunFolder) -> None:
        held.append((run.path / ".lock").exists())
        close(run)

    monkeypatch.setattr(RunFolder, "close", record)
    fail(tmp_path / "run", BadInput, lambda _: None)
    assert held == [False]


def test_a_run_with_progress_is_kept_after_any_error(tmp_path: Path) -> None:
    fail(tmp_path / "a", KeyboardInterrupt, lambda run: run.log({"step": 1}))
    fail(tmp_path / "b", BadInput, lambda run: run.write("failed.json", {}))
    assert (tmp_path / "a/recipe.toml").exists()
    assert (tmp_path / "b/recipe.toml").exists()


def test_an_empty_folder_of_the_users_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    fail(tmp_path / "mine", BadInput, lambda _: None)
    assert list((tmp_path / "mine").iterdir()) == []


def test_leftovers_of_a_killed_start_and_of_desktops_are_accepted(tmp_path: Path) -> None:
    for name in (".lock", ".recipe.toml.0a1b2c3d", ".DS_Store"):
        (tmp_path / name).write_text("")
    RunFolder.open(tmp_path, RECIPE).close()
    assert (tmp_path / "recipe.toml").read_text() == RECIPE


def test_opening_a_run_clears_up_after_killed_writers(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, RECIPE).close()
    for name in (".model.old", ".model.0a1b2c3d.part", ".other.old", "other", "mine.old", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / ".model.old/trunk").write_text("the last intact model")
    for name in (
        ".scores.json.0a1b2c3d.part",
        ".outcomes.safetensors.00000000.part",
        ".mine",
        ".my.json",
    ):
        (tmp_path / name).write_text("x")
    RunFolder.open(tmp_path, RECIPE, resume=True).close()
    assert sorted(os.listdir(tmp_path)) == sorted(
        [".git", ".lock", ".mine", ".my.json", "mine.old", "model", "other", "recipe.toml"]
    )
    assert (tmp_path / "model/trunk").read_text() == "the last intact model"


def test_a_second_writer_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with (
        RunFolder.open(tmp_path, RECIPE),
        raises(BadInput, tmp_path, try_="`out`"),
    ):
        RunFolder.open(tmp_path, RECIPE, resume=True)
    RunFolder.open(tmp_path, RECIPE, resume=True).close()


HOLD = r"""
import sys, os, time
from onetrunk.store.run_folder import RunFolder
from tests.helpers.errors import raises
run = RunFolder.open(sys.argv[1], sys.argv[2])
if len(sys.argv) > 3 and os.fork() == 0:
    os.write(1, f"{os.getpid()}\n".encode())
    time.sleep(60)
os.write(1, b"held\n")
time.sleep(60)
"""


@pytest.mark.parametrize("forks", [False, True])
def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path, forks: bool) -> None:
    """A data worker that outlives its killed trainer for a moment holds no lock."""
    if forks and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    place = tmp_path / "run"
    words = [sys.executable, "-c", HOLD, str(place), RECIPE, *(["forks"] if forks else [])]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        lines = {first.stdout.readline().strip() for _ in range(1 + forks)}
        assert "held" in lines
        try:
            with raises(BadInput, place, try_="`out`"):
                RunFolder.open(place, RECIPE, resume=True)
            first.kill()
            first.wait()
            RunFolder.open(place, RECIPE, resume=True).close()
        finally:
            first.kill()
            for worker in lines - {"held"}:
                os.kill(int(worker), signal.SIGKILL)


def test_a_line_of_metrics_is_strict_json(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        run.log({"step": 1, "val": {"a": float("nan"), "b": [float("inf"), 0.1]}, "über": "ü"})
        with raises(BadInput, "loss.a", got="Tensor"):
            run.log({"loss": {"a": torch.ones(())}})
    text = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    assert text == '{"step": 1, "val": {"a": null, "b": [null, 0.1]}, "über": "ü"}\n'


def test_metrics_are_cut_to_the_byte_where_the_run_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = tmp_path / "metrics.jsonl"
    with RunFolder.open(tmp_path, RECIPE) as run:
        run.log({"step": 1, "word": "grün"})
        intact = metrics.read_bytes()
        run.save("", 1, TENSORS, {})
        run.log({"step": 2})
    with metrics.open("ab") as file:
        file.write(b'{"step": 3, "lo')
    with RunFolder.open(tmp_path, RECIPE, resume=True) as run:
        run.rewind(run.last())
        assert metrics.read_bytes() == intact
        run.log({"step": 2})
        assert metrics.read_bytes() == intact + b'{"step": 2}\n'
        metrics.write_bytes(intact[:5])  # cut by hand
        run.rewind(run.last())
        assert metrics.read_bytes() == intact[:5]
        assert "metrics.jsonl lacks lines from before step 1" in capsys.readouterr().err
        run.rewind(None)
        assert metrics.read_bytes() == b""


def test_values_that_json_cannot_express_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with RunFolder.open(tmp_path, RECIPE) as run:
        with raises(BadInput, "best[1].value", "nan"):
            run.save("", 1, TENSORS, {"best": [0, {"value": float("nan")}]})
        with raises(BadInput, "domains", got=3):
            run.save("", 1, TENSORS, {"domains": {3: "x"}})
        with raises(BadInput, "metrics_bytes"):
            run.save("", 1, TENSORS, {"metrics_bytes": 3})
        with raises(BadInput, "a", got=float("inf")):
            run.write("scores.json", {"a": float("inf")})
        with raises(BadInput, "tensor b", available=["torch.float32"]):
            run.save("", 1, {"b": torch.eye(2).to_sparse()}, {})
        assert run.steps() == [] and not run.finished
        assert not list((tmp_path / "checkpoints").glob("*")), "a part of a checkpoint stayed"


def test_floats_in_a_state_are_read_back_to_the_bit(tmp_path: Path) -> None:
    floats = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2.0**-1074, 1e16 + 2]
    state = {"floats": floats, "big": 2**128 - 1, "none": None, "pair": (1, 2), "text": "\u2028ü\0"}
    with RunFolder.open(tmp_path, RECIPE) as run:
        run.save("", 1, TENSORS, state)
        back = run.at("", 1).state
    assert [x.hex() for x in back["floats"]] == [x.hex() for x in floats]
    assert back == {**state, "pair": [1, 2], "metrics_bytes": 0}


def test_a_part_cannot_leave_the_folder(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", RECIPE) as run:
        for part in ("..", "a/b", "/tmp", "A", "a\n"):
            with raises(BadInput, got=part):
                run.save(part, 1, TENSORS, {})


def test_a_line_that_a_full_disk_takes_in_part_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A metrics file on a disk with room for five bytes."""

        def __init__(self, file: io.FileIO) -> None:
            self.file, self.room = file, 5

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            done, self.room = self.file.write(data[: self.room]), 0
            return int(done)

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    with RunFolder.open(tmp_path, RECIPE) as run:
        run.log({"step": 1})
        assert run._metrics is not None
        monkeypatch.setattr(run, "_metrics", Full(run._metrics))
        with raises(Failed, "metrics.jsonl: the disk is full", try_="--resume"):
            run.log({"step": 2})
        assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
