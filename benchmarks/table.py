"""Options, table and result file that all benchmarks share."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

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
        """Print the table, and write the figures with the seed."""
        table = Table(title=title, title_justify="left")
        table.add_column("figure")
        table.add_column("measured", justify="right")
        table.add_column("target", justify="right")
        for row in self.rows:
            table.add_row(*row)
        Console().print(table)
        if file is not None:
            write_figures(file, {"seed": self.seed} | self.values)
            print(f"wrote {file}")


def measured_on() -> dict[str, str]:
    """Return date, machine and versions."""
    return {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_figures(file: Path, values: Mapping[str, Any]) -> None:
    """Write values as JSON, with date, machine and versions."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(measured_on() | dict(values), indent=1) + "\n")
    part.replace(file)


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
