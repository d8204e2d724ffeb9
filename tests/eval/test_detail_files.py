"""The folder of an evaluation is known as one that onetrunk has written."""

from __future__ import annotations

from pathlib import Path

from onetrunk.eval.detail_files import write_details
from onetrunk.store.results import is_results


def test_the_folder_is_no_folder_of_images(tmp_path: Path) -> None:
    write_details([], tmp_path / "photos/evaluation")
    assert is_results(tmp_path / "photos/evaluation")
    (tmp_path / "photos/evaluation/shop-confusion.png").touch()
    write_details([], tmp_path / "photos/evaluation")  # its own files
    assert is_results(tmp_path / "photos/evaluation")
