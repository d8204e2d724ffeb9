"""The room of the cache: large caches need permission, and the limit removes old folders."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from onetrunk.data import cache_room
from onetrunk.data.cache import decode_all
from onetrunk.data.cache_entries import USED, entries
from onetrunk.data.cache_room import LIMIT, asking, set_limit
from onetrunk.data.check_domains import check_domains
from onetrunk.data.domain import Domain
from onetrunk.data.index import read_index
from onetrunk.data.pixels import Pixels
from onetrunk.data.stored_images import RECORD
from onetrunk.errors import BadInput
from tests.helpers.errors import raises
from tests.helpers.fakes import Fake, small

FREE = 4 * 10**9  # bytes; a tenth of it is free for a cache without permission


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=FREE)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)


def build(source: Fake, side: int = 8) -> Path:
    index = read_index(source, "d")
    return decode_all(source, index, Pixels((side, side)), name="d").folder


def size_of(side: int) -> int:
    """Return the bytes of a cache of 24 images, records included."""
    return 24 * (3 * side * side + RECORD.itemsize)


@pytest.mark.usefixtures("disk")
def test_a_large_cache_is_refused_before_anything_is_decoded(cache_home: Path) -> None:
    source = small(8)  # 8 images of 4096² take 403 MB, more than a tenth of 4 GB
    with raises(BadInput, "0.4 GB", "4.0 GB", cache_home, try_="--yes"):
        build(source, 4096)
    assert source.reads == []
    assert not cache_home.exists()


@pytest.mark.usefixtures("disk")
def test_the_user_is_asked_once_for_several_domains(
    cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_room, "LARGE", 1.5 * size_of(8))
    domains = [
        Domain(name, small(24, images={"0": bytes([i])}), size=8 + i, allow_bad=True)
        for i, name in enumerate(("one", "two"))
    ]
    with raises(BadInput, "one, two"):  # each alone would be small
        check_domains(domains)
    assert not cache_home.exists()
    questions = []

    def agree(question: str) -> bool:
        questions.append(question)
        return True

    with asking(agree):
        check_domains(domains)
    assert len(questions) == 1 and "one, two" in questions[0]
    assert len(entries(cache_home)) == 2
    check_domains(domains)  # cached: no question


@pytest.mark.usefixtures("disk")
def test_a_limit_that_the_user_sets_is_a_permission(
    cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_room, "LARGE", 10)
    with raises(BadInput, try_=LIMIT):
        build(small())
    monkeypatch.setenv(LIMIT, "1MB")
    assert build(small()).parent == cache_home


def test_the_limit_removes_the_folder_unused_for_longest(
    cache_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, used = build(small(), 8), build(small(), 9)
    for folder, age in ((old, 200), (used, 100)):
        os.utime(folder / USED, (time.time() - age,) * 2)
    total = sum(entry.bytes for entry in entries(cache_home))
    monkeypatch.setenv(LIMIT, str(total + size_of(10) - 1))
    new = build(small(), 10)
    assert {entry.folder for entry in entries(cache_home)} == {used, new}
    assert "removed" in capsys.readouterr().err


def test_what_is_in_use_is_not_removed_and_the_rest_is_read_from_its_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    domain = Domain("a", small(), size=8)
    folder = domain.decoded.folder
    monkeypatch.setenv(LIMIT, str(size_of(8) + size_of(9) // 2))
    other = Domain("b", small(), size=9)
    assert other.decoded.frames.folder is None
    assert folder.exists()
    assert f"try: {LIMIT}=1GB" in capsys.readouterr().err
    assert len(other.train.batch([0, 1])[0]) == 2  # type: ignore[arg-type]


def test_the_default_limit_also_removes_old_folders(
    cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = build(small(), 8)
    monkeypatch.setattr(cache_room, "DEFAULT_LIMIT", size_of(9))
    new = build(small(), 9)
    assert [entry.folder for entry in entries(cache_home)] == [new]
    assert not old.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", None), ("50GB", 50 * 10**9), ("1.5 tb", 15 * 10**11), ("300mb", 3 * 10**8), ("0", 0)],
)
def test_limits_are_sizes(text: str, expected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, text)
    assert set_limit() == expected


@pytest.mark.parametrize("text", ["much", "50XB", "-1GB", "GB"])
def test_a_limit_that_is_no_size_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, text)
    with raises(BadInput, place=LIMIT, got=text, try_="50GB"):
        build(small())
