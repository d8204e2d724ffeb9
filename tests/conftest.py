"""What every test gets: a cache of its own, and child processes that import this checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import onetrunk

SRC = Path(onetrunk.__file__).parents[1]


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, in the environment, so that child processes use it too."""
    home = tmp_path / "cache-of-this-test"
    monkeypatch.setenv("ONETRUNK_CACHE", str(home))
    path = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SRC), *([path] if path else [])]))
    return home
