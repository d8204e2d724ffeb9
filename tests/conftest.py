"""What every test gets: a cache of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, in the environment, so that child processes use it too."""
    home = tmp_path / "cache-of-this-test"
    monkeypatch.setenv("ONETRUNK_CACHE", str(home))
    return home
