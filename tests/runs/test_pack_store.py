"""Adding, removing and importing packs; a kill at any instant leaves an intact model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.table import Table
from onetrunk.nn import model_files
from onetrunk.nn.saving import load, save
from onetrunk.runs import pack_store
from onetrunk.runs.add import add, import_pack
from onetrunk.runs.open import Run
from onetrunk.runs.update import undo, update
from onetrunk.store import atomic
from onetrunk.store.run_folder import RunFolder
from tests.helpers.added import FEW, files, more, predictions, same
from tests.helpers.errors import raises
from tests.helpers.worlds import network, noise, worlds


def outcomes(run: Path) -> set[str]:
    found = Run(run).outcomes
    assert found is not None
    return set(found.image_digests)


def rows(run: Path) -> dict[str, Any]:
    scores = Run(run).scores
    return {split: set(Table.from_json(scores[split]).rows) for split in ("val", "test")}


def test_a_removed_pack_is_imported_to_the_bit(run: Path) -> None:
    add(run, more(), train=Train(**FEW))
    update(run, Domain("new", noise(60, "abcd", 300), size=8), train=Train(**FEW))
    before, scores, digests = predictions(run), rows(run), outcomes(run)
    pack = (run / "model/packs/new.pack").read_bytes()
    for name in ("new", "one"):  # an added domain, and one of the training
        path = pack_store.remove(run, name)
        assert path == run / "removed" / name / f"{name}.pack"
        assert name not in load(run).domains
        assert not any(row.domain == name for row in rows(run)["test"])
        assert same({k: v for k, v in before.items() if k != name}, predictions(run))
        result = import_pack(run, name, path)
        assert same(before, predictions(run, *before))
        assert name not in result.unchanged.fingerprints
        assert rows(run) == scores
        assert outcomes(run) == digests
    assert (run / "model/packs/new.pack").read_bytes() == pack
    undo(run, "new")  # its history was also restored
    assert load(run).domains["new"].task("classify").classes == ("a", "b", "c")


def test_a_second_removed_pack_does_not_replace_the_first(run: Path) -> None:
    add(run, more(), train=Train(**FEW))
    first = (run / "model/packs/new.pack").read_bytes()
    pack_store.remove(run, "new")
    add(run, more(first=1), train=Train(**FEW))
    assert pack_store.remove(run, "new") == run / "removed/new-2/new.pack"
    assert (run / "removed/new/new.pack").read_bytes() == first


def test_a_pack_is_imported_into_a_copy_of_the_run(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    add(run, more(), train=Train(**FEW))
    file = tmp_path / "sent.pack"
    shutil.copy(run / "model/packs/new.pack", file)
    before = predictions(run)
    import_pack(other, "new", file)
    assert same(before, predictions(other))
    assert (other / "model/packs/new.pack").read_bytes() == file.read_bytes()
    assert Run(other).scores["added"]["new"]["from"] == "sent.pack"
    assert "new" not in Run(other).domains  # its images are not available there
    import_pack(other, "second", file)  # under another name
    again = predictions(other, "second")["second"]["classify"]
    assert again.equal(before["new"]["classify"])


def test_a_domain_is_added_to_a_saved_model(tmp_path: Path) -> None:
    model = network(worlds("one"))
    save(model, tmp_path / "saved")
    before = predictions(tmp_path / "saved")
    add(tmp_path / "saved", more(), train=Train(**FEW))
    assert same(before, predictions(tmp_path / "saved", "one"))
    assert list(load(tmp_path / "saved").domains) == ["one", "new"]
    assert not (tmp_path / "saved/scores.json").exists()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "a pickle": lambda data: b"\x80\x04\x95" + data,
    "another byte": lambda data: data[:-4] + b"\x00\x00\xc0\x7f",
}


@pytest.mark.parametrize("case", DAMAGE)
def test_hostile_packs_are_refused_in_one_line(run: Path, tmp_path: Path, case: str) -> None:
    file = tmp_path / "bad.pack"
    file.write_bytes(DAMAGE[case]((run / "model/packs/one.pack").read_bytes()))
    refused(run, file, "NaN" if case == "another byte" else "bad.pack")


def test_a_pack_of_another_trunk_is_refused_by_its_hash(run: Path, tmp_path: Path) -> None:
    other = network(worlds("one", "two"), seed=5)
    refused(run, other.pack("one").save(tmp_path / "other.pack"), "weights")
    other = network(worlds("one"), arch="resnet38")
    refused(run, other.pack("one").save(tmp_path / "other.pack"), "arch", "resnet20")
    refused(run, tmp_path / "nowhere.pack", "nowhere.pack")


def refused(run: Path, file: Path, *facts: str) -> None:
    before = files(run)
    with raises(BadInput, *facts) as error:
        import_pack(run, "other", file)
    assert "\n" not in str(error.value)
    assert files(run) == before


class Killed(BaseException):
    """As if the process had ended here."""


@pytest.mark.parametrize("command", ["add", "update", "remove", "remove trained", "undo"])
def test_after_a_kill_at_any_write_the_model_is_intact_and_the_command_completes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """All writes end in os.replace or os.rename; the process is killed at each in turn."""
    if command not in ("add", "remove trained"):
        add(run, more(), train=Train(**FEW))
    if command == "undo":
        update(run, Domain("new", noise(60, "abcd", 300), size=8), train=Train(**FEW))
    done = tmp_path / "done"
    if command in ("add", "update"):  # train once; the kills follow while the pack is published
        work = run / "adding/new"
        published: list[str] = []

        def publish(_: object, name: str) -> None:
            published.append(name)
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(pack_store, "publish", publish)
            with pytest.raises(Killed):
                start(run, command)
        assert published
        assert (work / "new.pack").exists()
    shutil.copytree(run, tmp_path / "begun")
    shutil.copytree(run, done)
    before = predictions(run)
    start(done, command)
    after = predictions(done)
    at = 0
    while True:
        at += 1
        copy = tmp_path / f"killed-at-{at}"
        shutil.copytree(tmp_path / "begun", copy)
        completed = completes(monkeypatch, at, partial(start, copy, command))
        current = predictions(copy)  # an intact model, before or after
        assert same(current, before) or same(current, after), at
        if completed:
            break
        with suppress(BadInput) if command not in ("add", "update") else nullcontext():
            start(copy, command)  # the others refuse if they had completed before the kill
        assert same(predictions(copy), after), at
        assert kept(copy) == kept(done), at
        assert rows(copy) == rows(done), at
        shutil.rmtree(copy)
    assert at > 3


def kept(run: Path) -> set[str]:
    """Return the files of a run, without those that a kill may leave twice."""
    return {name for name in files(run) if not name.startswith((".", "removed/", "history/"))}


def start(run: Path, command: str) -> None:
    if command == "add":
        add(run, more(), resume=True, train=Train(**FEW))
    elif command == "update":
        update(run, Domain("new", noise(60, "abcd", 300), size=8), resume=True, train=Train(**FEW))
    elif command == "undo":
        undo(run, "new")
    else:
        pack_store.remove(run, "one" if command == "remove trained" else "new")


def completes(monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> bool:
    """Act, and be killed at rename number `at`; return whether it completed before."""
    count = 0
    with monkeypatch.context() as patched:
        for module in (pack_store, atomic):
            for name in ("rename", "replace"):
                real = getattr(module.os, name)

                def wrapped(*args: Any, real: Any = real) -> None:
                    nonlocal count
                    count += 1
                    if count == at:
                        raise Killed
                    real(*args)

                patched.setattr(module.os, name, wrapped)
            break  # one os module for all
        try:
            act()
        except Killed:
            return False
    return True


def test_a_second_writer_is_refused_at_once(run: Path) -> None:
    before = files(run)
    with RunFolder.hold(run, "onetrunk add"):
        for act in (
            lambda: add(run, more(), train=Train(**FEW)),
            lambda: update(run, more("one")),
            lambda: undo(run, "one"),
            lambda: pack_store.remove(run, "one"),
            lambda: import_pack(run, "new", run / "model/packs/one.pack"),
        ):
            with raises(BadInput, run, try_="wait until it ends"):
                act()
    assert files(run) == before


def test_a_reader_tolerates_a_removal_at_the_same_time(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The domain is removed after the list of domains is read and before its pack is read."""
    listed = model_files.listed
    read: list[list[str]] = []

    def slow(place: Path, default: Any = None) -> list[str]:
        names = listed(place, default)
        if not read:
            read.append(names)
            model_files.relist(place, ["two"])
            pack_store.pack_path(run, "one").unlink()
        return names

    monkeypatch.setattr(model_files, "listed", slow)
    assert list(load(run).domains) == ["two"]
    assert torch.is_tensor(predictions(run)["two"]["classify"])
