"""Fixtures of every test: a separate cache, one thread, and child processes that import src."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import onetrunk

SRC = Path(onetrunk.__file__).parents[1]


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache folder, also in child processes."""
    home = tmp_path / "cache-of-this-test"
    monkeypatch.setenv("ONETRUNK_CACHE", str(home))
    path = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SRC), *([path] if path else [])]))
    return home


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run PyTorch on one thread, which is fastest for small networks and reproducible."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
