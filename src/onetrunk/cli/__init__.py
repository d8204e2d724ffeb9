"""The verbs of the command line; thin."""

from onetrunk.cli.app import main

__all__ = ["main"]
