"""A finished run, trained once, and copied for every test that changes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.added import finished


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never changed."""
    return finished(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    """A finished run of this test's own."""
    return Path(shutil.copytree(template, tmp_path / "run"))
