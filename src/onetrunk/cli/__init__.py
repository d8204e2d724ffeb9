"""The command line: one module for each command."""

from onetrunk.cli.app import main

__all__ = ["main"]
