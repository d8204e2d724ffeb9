"""Print results: JSON, tables, counts, and the next commands to run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console


def print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print a JSON document to standard output."""
    # ASCII only, so that no file name or terminal encoding can break it
    print(json.dumps(document, indent=1, allow_nan=False))


def counted(counts: Mapping[str, int]) -> str:
    """Format counts, for example `train 3, test 1`, leaving out zeros."""
    return ", ".join(f"{split} {n:,}" for split, n in counts.items() if n)


def console() -> Console:
    """Return a console on standard output."""
    return Console(soft_wrap=False, highlight=False)


def repeat(text: str) -> None:
    """Print a line of the result that was printed to standard error before.

    On a terminal that shows both, it is not printed again.
    """
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        print(text)


def suggest(*commands: str) -> None:
    """Print the commands to run next."""
    print("Next, run:")
    for command in commands:
        print(f"  {command}")
