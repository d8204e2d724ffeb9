"""The cache: images are decoded once, a killed build continues, and other files are kept."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from onetrunk import progress
from onetrunk.data import cache, cache_room
from onetrunk.data.cache import cache_home, decode_all, purge
from onetrunk.data.domain import Domain
from onetrunk.data.index import read_index
from onetrunk.data.pixels import Pixels, Raw
from onetrunk.data.stored_images import BAD, GOOD, RECORD, TODO, UNREADABLE
from onetrunk.errors import Failed
from tests.helpers.errors import raises
from tests.helpers.fakes import Fake, Files, dense_source, encoded, labelled, picture, small

PIXELS = Pixels((8, 8), margin=2)
HERE = Path(__file__).parent
needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork"
)


def build(source: Fake | Files, home: Path | None = None, **more: Any) -> cache.Decoded:
    index = read_index(source, "d")
    return decode_all(source, index, more.pop("pixels", PIXELS), name="d", home=home, **more)


def stored(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(folder.glob("*.bin"))}


def chunks_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CHUNK_BYTES", 1)


def test_stored_images_are_those_that_the_pipeline_reads(cache_home: Path) -> None:
    source = small(20)
    decoded = build(source)
    images, _ = decoded.frames.read(np.arange(20))
    for i in range(20):
        np.testing.assert_array_equal(images[i], PIXELS.read(picture(i)))
    assert decoded.folder.parent == cache_home
    assert (decoded.folder / "done.json").exists()


def test_an_image_is_decoded_once() -> None:
    source = small(20)
    build(source)
    assert sorted(source.reads) == sorted(str(i) for i in range(20))
    again = small(20)
    build(again)
    assert again.reads == []


def test_a_record_has_the_size_and_the_channel_statistics() -> None:
    source = small(4, images={"0": picture(0, 5, 31), "1": np.full((9, 9, 3), 51, np.uint8)})
    records = build(source).records
    assert (records["height"][0], records["width"][0]) == (5, 31)
    np.testing.assert_allclose(records["mean"][1], 0.2, atol=1e-6)
    np.testing.assert_allclose(records["square"][1], 0.04, atol=1e-6)
    values = PIXELS.read(picture(2)).reshape(-1, 3) / 255
    np.testing.assert_allclose(records["mean"][2], values.mean(0), atol=1e-5)


# killed


def killed_at(call: int, home: Path, source: Fake | Files) -> None:
    """Build in a fork that is killed at its n-th sync."""

    def run() -> None:
        cache.CHUNK_BYTES = 1
        calls = iter(range(call))
        sync = os.fsync

        def fsync(handle: int) -> None:
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            sync(handle)

        os.fsync = fsync  # type: ignore[assignment]
        build(source, home)

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


@needs_fork
# 4 chunks of 8 images, each synced as pixels, then as records; then the mark that all is done
@pytest.mark.parametrize("call", [0, 1, 2, 3, 4, 7, 8])
def test_a_killed_build_continues_to_the_same_bytes(call: int, tmp_path: Path) -> None:
    expected = stored(build(small(30), tmp_path / "uninterrupted").folder)
    killed_at(call, tmp_path / "killed", small(30))
    folder = next(f for f in (tmp_path / "killed").iterdir() if f.is_dir())
    assert not (folder / "done.json").exists()
    status = np.fromfile(folder / "records.bin", RECORD)["status"]
    # what is recorded was synced before; at most the last, unsynced, chunk of records is more
    synced = min(call // 2 * 8, 30)
    assert synced <= (status == GOOD).sum() <= synced + 8
    source = small(30)
    decoded = build(source, tmp_path / "killed")
    assert decoded.folder == folder
    assert stored(folder) == expected
    # not decoded again: what had its record
    assert sorted(source.reads, key=int) == [str(i) for i in np.flatnonzero(status == TODO)]


@needs_fork
def test_a_killed_build_of_dense_targets_continues_to_the_same_bytes(tmp_path: Path) -> None:
    expected = stored(build(dense_source(20), tmp_path / "uninterrupted").folder)
    assert set(expected) == {
        "images.bin",
        "records.bin",
        "target.segment.bin",
        "target.depth.bin",
        "target.normals.bin",
    }
    for call in (2, 5, 8, 11):
        killed_at(call, tmp_path / f"killed{call}", dense_source(20))
        assert stored(build(dense_source(20), tmp_path / f"killed{call}").folder) == expected


SLOW_BUILD = """
import sys, time
from pathlib import Path
from tests.helpers.fakes import Files
from onetrunk.data import cache, cache_room
from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
cache.CHUNK_BYTES = 1
root, log, home, pause = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
read = cache.read_image
def slow(*arguments):
    time.sleep(pause)
    return read(*arguments)
cache.read_image = slow  # a subclass of Files would have a cache of its own
print("ready", flush=True)
sys.stdin.readline()  # until the test says go: starting takes longer than building
domain = Domain("d", Files(root, log), size=8, cache=home)
print(len(domain.train), domain.decoded.folder, flush=True)
"""


def photos(root: Path, count: int = 60) -> Path:
    for i in range(count):
        path = root / "ab"[i % 2] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(i)))
    return root


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start the slow build in another process."""
    src = Path(cache.__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(src), str(HERE)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def go(*children: subprocess.Popen[str]) -> None:
    """Let the processes build when all of them are ready."""
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_process_killed_from_outside_frees_the_lock_and_loses_no_record(tmp_path: Path) -> None:
    root, log, home = photos(tmp_path / "photos"), tmp_path / "log", tmp_path / "home"
    child = start(root, log, home, 0.03)
    go(child)
    while len(lines(log)) < 25 and child.poll() is None:
        time.sleep(0.01)
    child.kill()
    child.communicate()
    folder = next(f for f in home.iterdir() if f.is_dir())
    status = np.fromfile(folder / "records.bin", RECORD)["status"]
    keys = [item.key for item in Files(root).items()]
    recorded = {sorted(keys)[i] for i in np.flatnonzero(status)}
    assert 0 < len(recorded) < 60
    log.unlink()
    domain = Domain("d", Files(root, log), size=8, cache=home)
    assert sum(len(part) for part in domain.splits.values()) == 60
    assert set(lines(log)) == set(keys) - recorded
    expected = Domain("d", Files(root), size=8, cache=tmp_path / "uninterrupted").decoded
    assert stored(folder) == stored(expected.folder)


def test_of_two_processes_one_decodes_and_both_read_the_images(tmp_path: Path) -> None:
    root, log, home = photos(tmp_path / "photos"), tmp_path / "log", tmp_path / "home"
    children = [start(root, log, home, 0.05) for _ in range(2)]
    go(*children)
    ended = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert ended[0][0] == ended[1][0]  # the same number of images, the same folder
    assert sorted(lines(log)) == sorted(item.key for item in Files(root).items())
    waited = [err for _, err in ended if "another process decodes" in err]
    assert len(waited) == 1
    folder = Path(ended[0][0].split()[-1])
    assert stored(folder) == stored(
        Domain("d", Files(root), size=8, cache=False).decoded.folder
    ) | {"images.bin": b"".join(PIXELS8.read(root / key).tobytes() for key in sorted(lines(log)))}


PIXELS8 = Pixels((8, 8))


def test_two_threads_at_once_decode_once() -> None:
    source = small(40)
    found: list[cache.Decoded] = []
    threads = [threading.Thread(target=lambda: found.append(build(source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(source.reads) == 40
    assert len({d.folder for d in found}) == 1
    assert len(found) == 4


# a full disk


def test_a_full_disk_is_one_line_and_the_next_build_continues(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = stored(build(small(30), tmp_path / "uninterrupted").folder)
    chunks_of_eight(monkeypatch)
    left = iter(range(5))

    def full(_: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(Failed) as error:
            build(small(30), tmp_path / "full")
    message = str(error.value)
    assert "\n" not in message
    assert "No space left" in message
    assert "try: free some space" in message
    source = small(30)
    decoded = build(source, tmp_path / "full")
    assert 0 < len(source.reads) < 30
    assert stored(decoded.folder) == expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_fills_up_during_writing_is_the_same_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = Path.open

    def on_a_full_disk(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        full = (self.name, mode) == ("images.bin", "r+b")
        return opened(Path("/dev/full") if full else self, mode, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", on_a_full_disk)
        with raises(Failed, got="No space left on device", try_="free some space"):
            build(small(30), tmp_path / "full")
    assert build(small(30), tmp_path / "full").frames.folder is not None


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system allocates lazily")
def test_a_build_on_a_full_disk_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        for _ in range(2):  # a file of the right length is not one with room
            with raises(Failed, got="No space left on device"):
                build(small(), tmp_path / "full")
    assert len(build(small(), tmp_path / "full").records) == 24


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system allocates lazily")
def test_a_file_system_without_allocation_is_supported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr("os.posix_fallocate", unknown)
    assert (build(small()).records["status"] == GOOD).all()


def test_if_the_disk_is_too_small_images_are_read_from_their_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage("/")._replace(free=cache_room.SPARE + 100)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    decoded = build(small())
    err = capsys.readouterr().err
    assert "GB are" in err
    assert "ONETRUNK_CACHE" in err
    assert decoded.frames.folder is None
    assert not list(decoded.folder.glob("images.bin"))
    images, _ = decoded.frames.read(np.array([3, 1]))
    np.testing.assert_array_equal(images[1], PIXELS.read(picture(1)))


def test_without_a_cache_the_records_are_kept_and_the_pixels_are_the_same() -> None:
    source = dense_source()
    direct, through = build(source, keep=False), build(dense_source())
    assert not list(direct.folder.glob("images.bin"))
    rows = np.array([5, 0, 11, 5])
    a, b = direct.frames.read(rows), through.frames.read(rows)
    np.testing.assert_array_equal(a[0], b[0])
    for name in ("segment", "depth", "normals"):
        np.testing.assert_array_equal(a[1][name], b[1][name])
        assert a[1][name].dtype == b[1][name].dtype
    np.testing.assert_array_equal(np.array(direct.records), np.array(through.records))


# the key


def key_of(source: Fake, pixels: Pixels = PIXELS) -> str:
    return build(source, pixels=pixels).folder.name


def test_the_key_changes_with_content_size_and_fit() -> None:
    plain = key_of(small())
    items = labelled(24, splits=("train", "train", "val", "test"))
    touched = Fake(small().tasks, [*items[:-1], type(items[0])("0023.png", "23", "new", "train")])
    others = [
        key_of(touched),
        key_of(small(25)),
        key_of(small(), Pixels((8, 9), margin=2)),
        key_of(small(), Pixels((8, 8), margin=3)),
        key_of(small(), Pixels((8, 8), "pad", margin=2)),
        key_of(small(), Pixels((8, 8), margin=2, fill=9)),
    ]
    assert len({plain, *others}) == 1 + len(others)


def test_the_key_changes_with_nothing_else() -> None:
    plain = key_of(small())
    relabelled = Fake(small().tasks, labelled(24, ("x", "y", "z"), ("train", "val")))
    assert key_of(relabelled) == plain
    assert key_of(small(), Pixels((10, 10))) == plain  # stored at the same size
    assert key_of(small(), Pixels((8, 8), margin=2, mean=(0, 0, 0), std=(1, 1, 1))) == plain
    backwards = small()
    backwards.listed = list(reversed(list(backwards.listed)))
    assert key_of(backwards) == plain


def test_a_changed_image_is_decoded_again(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 20)
    first = Domain("d", Files(root), size=8)
    before = first.train.stored(np.arange(len(first.train)))[0]
    changed = root / Path(first.train.key(0))
    changed.write_bytes(encoded(picture(999, 14, 14)))
    second = Domain("d", Files(root), size=8)
    after = second.train.stored(np.arange(len(second.train)))[0]
    np.testing.assert_array_equal(after[0], PIXELS8.read(picture(999, 14, 14)))
    np.testing.assert_array_equal(after[1:], before[1:])


# unreadable files


def test_bad_images_are_recorded_with_their_reasons_and_not_read_again() -> None:
    images = {"3": b"a text", "7": encoded(picture(7, 40, 40))[:900]}
    decoded = build(small(images=images))
    assert decoded.records["status"][[3, 7]].tolist() == [BAD, BAD]
    assert set(decoded.reasons) == {3, 7}
    assert "not an image" in decoded.reasons[3]
    again = small(images=images)
    assert build(again).reasons == decoded.reasons
    assert again.reads == []


def test_an_unreadable_image_is_tried_again_and_can_recover() -> None:
    away = {"3": OSError(errno.EIO, "Input/output error")}
    decoded = build(small(images=away))
    assert decoded.records["status"][3] == UNREADABLE
    assert decoded.reasons == {3: "Input/output error"}
    still = small(images=away)
    assert build(still).reasons == decoded.reasons
    assert still.reads == ["3"]
    back = small()
    mended = build(back)
    assert back.reads == ["3"]
    assert mended.reasons == {}
    assert (mended.records["status"] == GOOD).all()
    np.testing.assert_array_equal(mended.frames.read(np.array([3]))[0][0], PIXELS.read(picture(3)))


def test_opening_again_does_not_enlarge_the_cache() -> None:
    away = {"3": OSError(errno.EIO, "Input/output error")}
    folder = build(small(images=away)).folder
    size = sum(f.stat().st_size for f in folder.iterdir())
    for _ in range(3):
        build(small(images=away))
    assert sum(f.stat().st_size for f in folder.iterdir()) == size


def test_a_broken_link_and_a_folder_named_jpg_are_counted_and_not_fatal(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 20)
    (root / "a/dangling.png").symlink_to(root / "nowhere.png")
    decoded = build(Files(root), tmp_path / "home")
    assert list(decoded.reasons.values()) == ["No such file or directory"]
    folders = Fake(small().tasks, labelled(4), {"2": tmp_path})
    assert "directory" in build(folders, tmp_path / "home").reasons[2].lower()


def test_an_unreadable_target_is_not_reported_as_a_full_disk() -> None:
    source = dense_source()
    source.targets = {**source.targets, ("2", "depth"): PermissionError(errno.EACCES, "denied")}
    decoded = build(source)
    assert decoded.reasons == {2: "denied"}


def test_a_truncated_picture_that_is_decoded_lazily_is_bad_and_not_fatal() -> None:
    from io import BytesIO

    from PIL import Image

    lazy = Image.open(BytesIO(encoded(picture(1, 64, 64))[:5000]))
    assert set(build(small(images={"5": lazy})).reasons) == {5}


def test_an_image_is_tried_again_after_a_lack_of_memory() -> None:
    decoded = build(small(images={"5": MemoryError()}))
    assert decoded.records["status"][5] == UNREADABLE
    assert decoded.reasons == {5: "MemoryError"}


def test_a_bug_in_a_users_source_is_not_hidden() -> None:
    with raises(Failed, "image 5", "KeyError", "fakes.py", place="d") as info:
        build(small(images={"5": KeyError("a bug")}))
    assert isinstance(info.value.__cause__, KeyError)


# its place


def test_the_folder_is_set_by_the_environment_or_the_users_cache_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONETRUNK_CACHE", "/x/y")
    assert cache_home() == Path("/x/y")
    monkeypatch.delenv("ONETRUNK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/z")
    assert cache_home() == Path("/z/onetrunk")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_home() == Path.home() / ".cache/onetrunk"


def test_a_folder_that_cannot_be_written_is_replaced_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    decoded = build(small(), tmp_path / "file/home")
    assert decoded.folder.is_relative_to(tmp_path / "tmp")
    line = capsys.readouterr().err
    assert str(tmp_path / "file/home") in line and str(decoded.folder.parent) in line


def test_a_finished_folder_of_another_user_is_read(
    cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(small()).folder

    def denied(path: str, *_: Any, **__: Any) -> int:
        if str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *_, **__)

    opened = os.open
    monkeypatch.setattr(os, "open", denied)  # root may write everywhere
    source = small()
    decoded = build(source)
    assert decoded.folder == folder
    assert source.reads == []
    images, _ = decoded.frames.read(np.array([3]))
    np.testing.assert_array_equal(images[0], PIXELS.read(picture(3)))
    with raises(Failed, cache_home, got=os.strerror(errno.EACCES)):
        build(small(25))


def test_purge_empties_the_cache_and_returns_the_bytes(cache_home: Path) -> None:
    folder = build(small()).folder
    size = sum(f.stat().st_size for f in folder.iterdir())
    assert purge() == (cache_home, size)
    assert list(cache_home.iterdir()) == []
    assert purge() == (cache_home, 0)
    source = small()
    build(source)
    assert len(source.reads) == 24


def test_purge_of_a_missing_folder_frees_nothing(tmp_path: Path) -> None:
    assert purge(tmp_path / "nowhere") == (tmp_path / "nowhere", 0)


def test_purge_keeps_other_files(cache_home: Path) -> None:
    build(small())
    keep = ["my-boxes/photo.jpg", "uv.lock", "2024-06x07/a.png", "notes.txt"]
    for name in keep:
        (cache_home / name).parent.mkdir(exist_ok=True)
        (cache_home / name).write_text("mine")
    purge()
    left = sorted(str(f.relative_to(cache_home)) for f in cache_home.rglob("*") if f.is_file())
    assert left == sorted(keep)


def test_purge_keeps_folders_that_are_being_decoded_into(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = build(small()).folder
    other = build(small(), pixels=Pixels((9, 9))).folder
    with FileLock(f"{folder}.lock"):
        purge()
    assert folder.exists()
    assert not other.exists()
    assert "purge again" in capsys.readouterr().err
    document = json.loads((folder / "done.json").read_text())
    assert document["count"] == 24


def test_progress_is_shown_within_a_chunk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache, "REPORT", 0.01)
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    source = small(40)
    read = source.image

    def slowly(where: str) -> Raw:
        time.sleep(0.01)
        return read(where)

    monkeypatch.setattr(source, "image", slowly)
    domain = Domain("d", source, size=8)
    assert len(domain.decoded.records) == 40  # of one chunk
    lines = [line for line in capsys.readouterr().err.splitlines() if "decoding" in line]
    counts = [int(re.findall(r"(\d+) of 40", line)[0]) for line in lines]
    assert len(set(counts)) > 2
    assert counts == sorted(counts)
    assert counts[-1] <= 40
