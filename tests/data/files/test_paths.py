"""Paths that start with ~, and what a name of an unknown user means."""

from __future__ import annotations

from pathlib import Path

import pytest

from onetrunk.data.files.paths import existing_path, expanded
from onetrunk.data.objects.images import path_of
from onetrunk.data.sources import SourceOptions, open_source
from onetrunk.errors import BadInput
from tests.helpers.errors import raises

NOBODY = "~no-such-user-here"


def test_the_home_folder_is_put_in_place_of_its_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/homes/me")
    monkeypatch.setenv("USERPROFILE", "/homes/me")
    assert expanded("~/photos") == path_of("~/photos", Path("/base")) == Path("/homes/me/photos")
    with raises(BadInput, got=f"{NOBODY}/x", try_=f"./{NOBODY}/x"):
        existing_path(Path(), f"{NOBODY}/x", "folder")


@pytest.mark.parametrize("prefix", ["folder", "table", "coco", "hf", "webdataset", "unlabelled"])
def test_an_unknown_user_is_no_traceback(prefix: str, tmp_path: Path) -> None:
    if prefix == "hf":
        pytest.importorskip("datasets")
    with raises(BadInput, NOBODY):
        open_source(f"{prefix}:{NOBODY}/photos.tar", SourceOptions(tmp_path))


def test_an_image_may_have_a_name_that_starts_with_the_sign() -> None:
    assert path_of("~$a.jpg", Path("/base")) == Path("/base/~$a.jpg")
