"""How results are shown: JSON for programs, tables and short lists for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console


def print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """One document, and nothing else on standard output."""
    # ASCII alone, so that it is JSON whatever the terminal's encoding and the files' names
    print(json.dumps(document, indent=1, allow_nan=False))


def some(names: Sequence[str], shown: int = 4) -> str:
    """The first names, and how many there are."""
    more = f", … ({len(names):,} in all)" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def counted(found: Mapping[str, int]) -> str:
    """`train 3, test 1`, without zeros."""
    return ", ".join(f"{split} {n:,}" for split, n in found.items() if n)


def console() -> Console:
    """Standard output, as it is now."""
    return Console(soft_wrap=False, highlight=False)
