"""Packs come and go in a run, to the bit; a kill at any instant of it leaves a whole model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.table import Table
from onetrunk.nn import saving as saved
from onetrunk.nn.saving import load, save
from onetrunk.runs import pack_store as shelf
from onetrunk.runs.add import add
from onetrunk.runs.import_pack import bring
from onetrunk.runs.open import domains_of
from onetrunk.runs.update import undo, update
from onetrunk.store import atomic
from onetrunk.store.run_folder import RunFolder
from tests.helpers.added import FEW, files, more, predictions, same
from tests.helpers.worlds import network, noise, worlds


def rows(run: Path) -> dict[str, Any]:
    scores = json.loads((run / "scores.json").read_text())
    return {split: set(Table.from_json(scores[split]).rows) for split in ("val", "test")}


def test_removed_and_brought_back_to_the_bit(run: Path) -> None:
    add(run, more(), **FEW)
    update(run, Domain("new", noise(60, "abcd", 300), size=8), **FEW)
    before, scores, pack = predictions(run), rows(run), (run / "model/packs/new.pack").read_bytes()
    for name in ("new", "one"):  # one that was grown, and one that the run was trained with
        path = shelf.remove(run, name)
        assert path == run / "removed" / name / f"{name}.pack"
        assert name not in load(run).domains
        assert not any(row.domain == name for row in rows(run)["test"])
        assert same({k: v for k, v in before.items() if k != name}, predictions(run))
        grown = bring(run, name, path)
        assert same(before, predictions(run, *before))
        assert name not in grown.proof.prints
        assert rows(run) == scores
    assert (run / "model/packs/new.pack").read_bytes() == pack
    undo(run, "new")  # its history came back with it
    assert load(run).domains["new"].task("classify").classes == ("a", "b", "c")


def test_a_second_domain_of_a_name_does_not_push_the_first_out(run: Path) -> None:
    add(run, more(), **FEW)
    first = (run / "model/packs/new.pack").read_bytes()
    shelf.remove(run, "new")
    add(run, more(first=1), **FEW)
    assert shelf.remove(run, "new") == run / "removed/new-2/new.pack"
    assert (run / "removed/new/new.pack").read_bytes() == first


def test_a_pack_goes_to_another_machine(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    add(run, more(), **FEW)
    file = tmp_path / "sent.pack"
    shutil.copy(run / "model/packs/new.pack", file)
    before = predictions(run)
    bring(other, "new", file)
    assert same(before, predictions(other))
    assert (other / "model/packs/new.pack").read_bytes() == file.read_bytes()
    scores = json.loads((other / "scores.json").read_text())
    assert scores["grown"]["new"]["from"] == "sent.pack"
    assert "new" not in [domain.name for domain in domains_of(other)]  # its images are elsewhere
    bring(other, "second", file)  # under another name
    again = predictions(other, "second")["second"]["classify"]
    assert again.equal(before["new"]["classify"])


def test_a_folder_of_save_grows_too(tmp_path: Path) -> None:
    model = network(worlds("one"))
    save(model, tmp_path / "kept")
    before = predictions(tmp_path / "kept")
    add(tmp_path / "kept", more(), **FEW)
    assert same(before, predictions(tmp_path / "kept", "one"))
    assert list(load(tmp_path / "kept").domains) == ["one", "new"]
    assert not (tmp_path / "kept/scores.json").exists()


HARM: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "not a whole pack"),
    "half": (lambda data: data[: len(data) // 2], "not a whole pack"),
    "a pickle": (lambda data: b"\x80\x04\x95" + data, "not a whole pack"),
    "another byte": (lambda data: data[:-4] + b"\x00\x00\xc0\x7f", "finite|not"),
}


@pytest.mark.parametrize("case", HARM)
def test_hostile_packs_are_refused_in_one_line(run: Path, tmp_path: Path, case: str) -> None:
    harm, says = HARM[case]
    file = tmp_path / "bad.pack"
    file.write_bytes(harm((run / "model/packs/one.pack").read_bytes()))
    refused(run, file, says)


def test_a_pack_of_another_trunk_is_refused_by_its_hash(run: Path, tmp_path: Path) -> None:
    other = network(worlds("one", "two"), seed=5)
    refused(run, other.pack("one").save(tmp_path / "theirs.pack"), "other weights")
    other = network(worlds("one"), arch="resnet38")
    refused(run, other.pack("one").save(tmp_path / "theirs.pack"), "arch is to be 'resnet20'")
    refused(run, tmp_path / "nowhere.pack", "cannot read the pack")


def refused(run: Path, file: Path, says: str) -> None:
    before = files(run)
    with pytest.raises(BadInput, match=says) as error:
        bring(run, "theirs", file)
    assert "\n" not in str(error.value)
    assert files(run) == before


class Killed(BaseException):
    """As if the process had ended here."""


@pytest.mark.parametrize("what", ["add", "update", "remove", "undo"])
def test_a_kill_at_any_write_leaves_a_model_and_the_same_command_ends_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Writing goes through os.replace and os.rename: the process dies at each of them in turn."""
    if what != "add":
        add(run, more(), **FEW)
    if what == "undo":
        update(run, Domain("new", noise(60, "abcd", 300), size=8), **FEW)
    done = tmp_path / "done"
    if what in ("add", "update"):  # learned once; what is tried is putting it into use
        work = run / "growing/new"
        publish, taken = shelf.publish, []
        monkeypatch.setattr(shelf, "publish", lambda _, name: taken.append(name) or die())
        with pytest.raises(Killed):
            start(run, what)
        assert taken
        assert (work / "new.pack").exists()
        monkeypatch.setattr(shelf, "publish", publish)
    shutil.copytree(run, tmp_path / "begun")
    shutil.copytree(run, done)
    before = predictions(run)
    start(done, what)
    after = predictions(done)
    life = 0
    while True:
        life += 1
        here = tmp_path / f"life-{life}"
        shutil.copytree(tmp_path / "begun", here)
        ended = dying(monkeypatch, life, lambda here=here: start(here, what))
        found = predictions(here)  # a whole model, before or after
        assert same(found, before) or same(found, after), life
        if ended:
            break
        with suppress(BadInput) if what in ("remove", "undo") else nullcontext():
            start(here, what)  # those two may have been done before it died, and say so
        assert same(predictions(here), after), life
        assert kept(here) == kept(done), life
        shutil.rmtree(here)
    assert life > 3


def kept(run: Path) -> set[str]:
    """The files of a run but for what a kill may leave twice."""
    return {name for name in files(run) if not name.startswith((".", "removed/", "history/"))}


def start(run: Path, what: str) -> None:
    if what == "add":
        add(run, more(), resume=True, **FEW)
    elif what == "update":
        update(run, Domain("new", noise(60, "abcd", 300), size=8), resume=True, **FEW)
    elif what == "undo":
        undo(run, "new")
    else:
        shelf.remove(run, "new")


def die() -> None:
    raise Killed


def dying(monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> bool:
    """Act, and die at the `at`-th rename; whether it ended before."""
    count = 0
    with monkeypatch.context() as patched:
        for module in (shelf, atomic):
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
            lambda: add(run, more(), **FEW),
            lambda: update(run, more("one")),
            lambda: undo(run, "one"),
            lambda: shelf.remove(run, "one"),
            lambda: bring(run, "new", run / "model/packs/one.pack"),
        ):
            with pytest.raises(BadInput, match="another process is writing to the run"):
                act()
    assert files(run) == before


def test_a_reader_meanwhile_never_misses_a_pack(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A domain that is removed between the list and its pack."""
    listed, first = saved.listed, []

    def slow(place: Path, at_first: Any = None) -> list[str]:
        found = listed(place, at_first)
        if not first:
            first.append(found)
            shelf.relist(place, ["two"])
            shelf.pack_path(run, "one").unlink()
        return found

    monkeypatch.setattr(saved, "listed", slow)
    assert list(load(run).domains) == ["two"]
    assert torch.is_tensor(predictions(run)["two"]["classify"])
