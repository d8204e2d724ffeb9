"""What every benchmark shares: its options, its table, and the file that keeps its figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table


def options(about: str) -> argparse.Namespace:
    """`--quick`, `--json FILE`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="small and fast: does it run at all?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures here")
    return parser.parse_args()


@dataclass
class Figures:
    """Names to numbers, flat; a ratio's name ends in `_ratio`."""

    seed: int
    values: dict[str, float] = field(default_factory=dict)
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, name: str, value: float, shown: str, aim: str = "") -> None:
        """One figure, how it is shown, and what it is held against."""
        self.values[name] = round(value, 4)
        self.rows.append((name, shown, aim))
        print(f"  {name}: {shown}", flush=True)

    def finish(self, title: str, file: Path | None) -> None:
        """Print the table, and keep the figures with date, machine, versions and seed."""
        table = Table(title=title, title_justify="left")
        table.add_column("figure")
        table.add_column("measured", justify="right")
        table.add_column("aim", justify="right")
        for row in self.rows:
            table.add_row(*row)
        Console().print(table)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            kept = {
                "date": date.today().isoformat(),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "python": platform.python_version(),
                "torch": torch.__version__,
                "seed": self.seed,
            }
            file.write_text(json.dumps(kept | self.values, indent=1) + "\n")
            print(f"wrote {file}")


def median(values: list[float]) -> float:
    """The middle one, or the mean of the two middle ones."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def paired(ours: Callable[[], float], theirs: Callable[[], float], pairs: int) -> list[float]:
    """theirs, ours, theirs, ours, …: a ratio a pair, so that the machine's drift cancels."""
    ratios = []
    for _ in range(pairs):
        slow = theirs()
        ratios.append(ours() / slow)
    return ratios
