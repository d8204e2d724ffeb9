"""The fixture `run`: a finished run."""

from tests.helpers.added import run, template

__all__ = ["run", "template"]
