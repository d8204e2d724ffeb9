"""Fixtures of the tests of settings."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Collect garbage before the test and not in it.

    Finalizers that run at the depth of nested brackets exceed Python's recursion limit, and pytest
    reports their errors as those of the test.
    """
    gc.collect()
    gc.disable()
    yield
    gc.enable()
