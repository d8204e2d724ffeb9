"""Fixtures of finished runs, for the tests of new domains and few images."""

from tests.runs.conftest import run, template

__all__ = ["run", "template"]
