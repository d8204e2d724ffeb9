"""The folders of the cache: where they come from, and that those in use are never removed."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from onetrunk.data import cache_entries
from onetrunk.data.cache import Decoded, decode_all, purge
from onetrunk.data.cache_entries import USED, InUse, Origin, entries, evict, is_in_use
from onetrunk.data.index import read_index
from onetrunk.data.pixels import Pixels
from tests.helpers.fakes import picture, small


def build(side: int, origin: str = "folder:photos", age: float = 0.0) -> Path:
    """Cache images of one size; return the folder, which was last used `age` seconds ago."""
    folder = opened(side, origin).folder
    if age:
        os.utime(folder / USED, (time.time() - age,) * 2)
    return folder


def opened(side: int, origin: str = "folder:photos") -> Decoded:
    source = small(8)
    index = read_index(source, "d")
    return decode_all(source, index, Pixels((side, side)), name="d", origin=Origin(origin))


def test_entries_have_source_size_and_last_use(cache_home: Path) -> None:
    old, new = build(8, "folder:a", 3600), build(10, "folder:b")
    (cache_home / "mine").mkdir()  # not a folder of the cache
    first, second = entries(cache_home)
    assert (first.folder, second.folder) == (new, old)
    assert (str(second.origin), second.images, second.size) == ("folder:a", 8, "8x8")
    assert second.bytes == sum(f.stat().st_size for f in old.iterdir())
    assert second.finished
    assert 3590 < time.time() - second.used < 3700
    assert json.loads(json.dumps(second.to_json()))["source"] == "folder:a"


def test_opening_again_is_a_use(cache_home: Path) -> None:
    folder = build(8, age=3600)
    build(8)
    (entry,) = entries(cache_home)
    assert entry.folder == folder
    assert time.time() - entry.used < 600


def test_a_damaged_description_is_an_unknown_source(cache_home: Path) -> None:
    folder = build(8)
    for text in ("{", "[]", '{"source": 3, "images": "many"}'):
        (folder / cache_entries.ABOUT).write_text(text)
        (entry,) = entries(cache_home)
        assert entry.origin is None and entry.images is None


def test_the_same_source_by_two_spellings_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    here = Origin.of("folder:photos", Path())
    assert here.matches(Origin.of(f"folder:{tmp_path}/photos", Path("/")))
    assert not here.matches(Origin.of("folder:digits", Path()))
    assert not here.matches(Origin.of("unlabelled:photos", Path()))
    # an embedded domain has no path, also beside a folder of its name
    assert Origin("pocket:digits").matches(Origin.of("pocket:digits", Path()))
    assert str(here) == f"folder:{tmp_path}/photos"


def test_images_that_are_being_read_are_not_removed(
    cache_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decoded = opened(8)
    assert purge()[1] == 0
    assert "a process uses it" in capsys.readouterr().err
    images, _ = decoded.frames.read(np.array([1]))
    np.testing.assert_array_equal(images[0], Pixels((8, 8)).read(picture(1)))
    del decoded
    gc.collect()
    assert purge()[1] > 0
    assert list(cache_home.iterdir()) == []


HOLD = """
import sys
from pathlib import Path
from onetrunk.data.cache_entries import InUse
used = InUse(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_process_no_longer_uses_a_folder(cache_home: Path) -> None:
    folder = build(8)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    assert is_in_use(folder)
    assert evict(cache_home, 10**9, cache_home / "other") == 0
    child.kill()
    child.communicate()
    assert not is_in_use(folder)
    assert not list(folder.glob("use-*"))
    assert evict(cache_home, 10**9, cache_home / "other") > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_that_drops_the_images_leaves_them_in_use(cache_home: Path) -> None:
    used = [InUse(build(8))]
    child = os.fork()
    if child == 0:
        used.clear()
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    (entry,) = entries(cache_home)
    assert is_in_use(entry.folder)
    used.clear()
    assert not is_in_use(entry.folder)


def test_the_folder_unused_for_longest_is_evicted_first(cache_home: Path) -> None:
    oldest, middle, newest = build(8, age=300), build(9, age=200), build(10, age=100)
    keep = build(11, age=400)
    assert evict(cache_home, 1, keep) > 0
    assert [path.exists() for path in (oldest, middle, newest, keep)] == [False, True, True, True]
    evict(cache_home, 10**9, keep)
    assert [entry.folder for entry in entries(cache_home)] == [keep]


@pytest.mark.usefixtures("cache_home")
def test_a_mark_that_another_process_checks_is_replaced_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = build(8)
    names = iter(["checked", "own"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(names))
    with FileLock(folder / f"use-{os.getpid()}-checked.lock"):
        use = InUse(folder)
    (folder / f"use-{os.getpid()}-checked.lock").unlink(missing_ok=True)
    assert is_in_use(folder)
    assert (folder / f"use-{os.getpid()}-own.lock").exists()
    del use
    gc.collect()
    assert not is_in_use(folder)


def test_the_path_of_a_cache_is_printed_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a\x1b[31m" / f"{'0' * 24}-8x8"
    folder.mkdir(parents=True)
    use = InUse(folder)
    (entry,) = entries(folder.parent)
    assert cache_entries.remove([entry]) == []
    assert "\x1b" not in (printed := capsys.readouterr().err) and "is kept" in printed
    del use
