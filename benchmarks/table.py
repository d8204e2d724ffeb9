"""Options, table and result file that all benchmarks share."""

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
    """Parse the options `--quick` and `--json FILE`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="small and fast, to test the program")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    return parser.parse_args()


@dataclass
class Figures:
    """Numbers by name, and the rows of the table. Names of ratios end in `_ratio`."""

    seed: int
    values: dict[str, float] = field(default_factory=dict)
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, name: str, value: float, shown: str, aim: str = "") -> None:
        """Add a figure, with its text and its target for the table."""
        self.values[name] = round(value, 4)
        self.rows.append((name, shown, aim))
        print(f"  {name}: {shown}", flush=True)

    def finish(self, title: str, file: Path | None) -> None:
        """Print the table, and write the figures with date, machine, versions and seed."""
        table = Table(title=title, title_justify="left")
        table.add_column("figure")
        table.add_column("measured", justify="right")
        table.add_column("target", justify="right")
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
    """Return the median."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def paired(ours: Callable[[], float], theirs: Callable[[], float], pairs: int) -> list[float]:
    """Return ratios of alternating measurements, so that drifts of the machine cancel out."""
    ratios = []
    for _ in range(pairs):
        slow = theirs()
        ratios.append(ours() / slow)
    return ratios
