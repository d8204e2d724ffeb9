"""Places to write to: a folder or file of the user's is refused, and nothing is changed in it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from onetrunk.errors import BadInput
from onetrunk.store.places import check_file, check_folder, mark
from onetrunk.store.results import is_results, no_model
from tests.helpers.errors import raises


def nothing(_: Path) -> bool:
    return False


def test_a_folder_with_other_files_is_refused_with_their_names(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        (tmp_path / name).touch()
    with raises(BadInput, tmp_path, "a.png, b.png, c.png, … (4 in all)", "a run", try_="another"):
        check_folder(tmp_path, "a run", nothing)
    check_folder(tmp_path, "a run", lambda path: path.suffix == ".png")


def test_missing_empty_and_marked_folders_are_accepted(tmp_path: Path) -> None:
    for name in ("new/er", "empty", "marked"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        if name == "marked":
            mark(tmp_path / name, "maps")
            (tmp_path / name / "a.png").touch()
        check_folder(tmp_path / name, "a run", nothing)
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty/.DS_Store").touch()
    check_folder(tmp_path / "empty", "a run", nothing)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in ("file", "file/run", "file/deep/run"):
        with raises(BadInput, tmp_path / path, got=f"{tmp_path / 'file'} is not a folder"):
            check_folder(tmp_path / path, "a run", nothing)
    with raises(BadInput, got=f"{tmp_path / 'file'} is not a folder"):
        check_file(tmp_path / "file/a.png")
    with raises(BadInput, got=f"{tmp_path}, a folder"):
        check_file(tmp_path)


def test_a_place_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with raises(BadInput, tmp_path / "new", got=f"no permission to write to {tmp_path}"):
        check_folder(tmp_path / "new", "a run", nothing)
    with raises(BadInput, got=f"no permission to write to {tmp_path}"):
        check_file(tmp_path / "report.html")


def test_a_place_where_nothing_can_be_created_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raises(BadInput, "x" * 300, try_="another"):
        check_folder(tmp_path / ("x" * 300), "a run", nothing)

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)  # a read-only file system
    with raises(BadInput, "Read-only", tmp_path, try_="another"):
        check_folder(tmp_path, "a run", nothing)
    with raises(BadInput, "Read-only", tmp_path, try_="another"):
        check_file(tmp_path / "new/report.html")
    assert not any(tmp_path.iterdir())


def test_a_file_that_cannot_be_replaced_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sheet.png"
    path.touch()
    check_file(path)
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != path and access(p, mode))
    with raises(BadInput, path, got="no permission"):
        check_file(path)


def test_runs_and_folders_of_runs_are_results_and_folders_of_images_are_not(tmp_path: Path) -> None:
    run = tmp_path / "runs/shop/seed-0"
    run.mkdir(parents=True)
    (run / "recipe.toml").touch()
    assert not is_results(run)  # a recipe alone may lie beside images
    (run / "metrics.jsonl").touch()
    (tmp_path / "runs/report.html").touch()
    assert is_results(run)
    assert is_results(tmp_path / "runs")
    (tmp_path / "runs/cat").mkdir()
    assert not is_results(tmp_path / "runs/cat")
    assert not is_results(tmp_path / "runs")
    (tmp_path / "runs/cat").rmdir()
    (tmp_path / "runs/photo.png").touch()
    assert not is_results(tmp_path / "runs")


def test_a_folder_without_a_model_is_missing_unfinished_or_another(tmp_path: Path) -> None:
    runs, half = tmp_path / "runs", tmp_path / "runs/half"
    half.mkdir(parents=True)
    (half / "recipe.toml").touch()
    (half / "metrics.jsonl").touch()
    (runs / "saved/model").mkdir(parents=True)
    (runs / "notes.txt").touch()
    with raises(BadInput, "unfinished", try_=f"onetrunk train {half}/recipe.toml --resume"):
        raise no_model(half)
    beside = [str(half), str(runs / "saved")]
    with raises(BadInput, "does not exist", got=f"{runs}/halv", try_=str(half)) as error:
        raise no_model(runs / "halv")
    assert list(error.value.available or ()) == beside
    for path in (runs, runs / "notes.txt"):
        with raises(BadInput, path) as error:
            raise no_model(path)
        assert list(error.value.available or ()) == beside
    with raises(BadInput, try_="onetrunk train RECIPE") as error:
        raise no_model(tmp_path / "a/b")
    assert error.value.available == ()


def test_runs_beside_are_not_listed_in_a_folder_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with raises(BadInput, "does not exist", got=f"{tmp_path}/run"):
        raise no_model(tmp_path / "run")
