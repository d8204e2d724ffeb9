"""The defaults of training with a pretrained trunk, each varied alone: validation errors.

    python benchmarks/defaults.py [--quick] [--json FILE] [--rows base,clip] [--domains emoji,flags]
                                  [--seeds 0,1] [--show]

A specialist is trained for each of six embedded domains of different kinds: timm's
EfficientNet-lite0 with ImageNet weights, 64 pixels, 150 steps of 16 images, AdamW at the default
learning rate. A row changes one setting of the base, which has the defaults. The figures are errors
in percent on the validation split, of the weights that validation selects; the test split is not
read. A cell (row, domain, seed) that FILE has is not trained again, so an interrupted benchmark
continues; a row takes some minutes on one core. The table is also written as Markdown beside FILE,
for docs/defaults.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import fmean as mean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import onetrunk as ot
from onetrunk.config.optimizers import train_defaults
from onetrunk.eval.evaluate import evaluate
from onetrunk.nn.published_weights import PACKAGES, PREFIX
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.loggers import make_logger
from onetrunk.train.loop import fit

RESULTS = Path(__file__).parent / "results" / "defaults.json"
DOMAINS = ("creatures", "emoji", "flags", "icons", "fashion", "encounter")
LITE0 = PACKAGES[0]
Cell = dict[str, Any]


@dataclass(frozen=True)
class Variation:
    """One change to the base setting."""

    name: str
    change: str  # for the table
    train: Mapping[str, Any] = field(default_factory=dict)
    domain: Mapping[str, Any] = field(default_factory=dict)


BASE = Variation("base", "the base")
VARIATIONS = (
    BASE,
    Variation("label_smoothing", "`label_smoothing` 0 instead of 0.1", {"label_smoothing": 0.0}),
    Variation("ema", "`ema` 0 instead of 0.999", {"ema": 0.0}),
    Variation("head_lr_factor", "`head_lr_factor` 1 instead of 10", {"head_lr_factor": 1.0}),
    Variation("weight_decay", "`weight_decay` 0.01 instead of 0.05", {"weight_decay": 0.01}),
    Variation("clip", "`clip` 1 instead of 0", {"clip": 1.0}),
    Variation("crops", "no crops instead of crops by an eighth", {}, {"augment": {"pad": 0}}),
    Variation("flip", "half of the images mirrored", {}, {"flip": True}),
)


@dataclass(frozen=True)
class Setting:
    """What all cells share."""

    arch: str = LITE0.arch
    pretrained: bool | str = PREFIX + LITE0.name
    size: int = 64
    steps: int = 150
    batch: int = 16


QUICK = Setting("timm/test_efficientnet", False, 32, 2, 4)


def train_cell(setting: Setting, variation: Variation, name: str, seed: int) -> Cell:
    """Train a specialist, and return its validation error."""
    torch.manual_seed(seed)
    trunk = ot.Trunk(setting.arch, pretrained=setting.pretrained, sharing="none")
    domain = ot.Domain(name, f"pocket:{name}", size=setting.size, **variation.domain)
    model = ot.Universal(trunk, [domain])
    defaults = train_defaults("adamw", "pretrained")
    train = ot.Train(
        **{key: value for key, value in defaults.items() if value is not None}
        | {"steps": setting.steps, "batch": setting.batch, "eval_every": -(-setting.steps // 3)}
        | dict(variation.train)
    )
    with tempfile.TemporaryDirectory() as folder, RunFolder.open(folder, "") as run:
        logger = make_logger([], run.path, {"name": name, "config": {}})
        fit(model, [domain], train, run, logger, part=name, device=torch.device("cpu"), seed=seed)
    error = evaluate(model, [domain], "val", intervals=False, progress=False).value(name)
    return {
        "row": variation.name,
        "domain": name,
        "seed": seed,
        "error": round(error, 3),
    }


def read_cells(file: Path | None) -> list[Cell]:
    """Return the cells that a file has."""
    if file is None or not file.is_file():
        return []
    cells: list[Cell] = json.loads(file.read_text())["cells"]
    return cells


def write_cells(file: Path, setting: Setting, cells: Sequence[Cell]) -> None:
    """Write the cells with date, machine and versions, and the table as Markdown beside them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "setting": vars(setting),
        "split": "val",
        "cells": list(cells),
    }
    part = file.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1) + "\n")
    part.replace(file)
    rows = table_rows(cells)
    lines = [" | ".join(row) for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]]
    file.with_suffix(".md").write_text("\n".join(f"| {line} |" for line in lines) + "\n")


def table_rows(cells: Sequence[Cell]) -> list[list[str]]:
    """Return the header and a row of text for each variation; a dash for what is not measured."""
    errors: dict[tuple[str, str], dict[int, float]] = {}
    for cell in cells:
        errors.setdefault((cell["row"], cell["domain"]), {})[cell["seed"]] = cell["error"]
    seeds = sorted({cell["seed"] for cell in cells})
    rows = [["", *DOMAINS, "mean", "difference", "seeds"]]
    for variation in VARIATIONS:
        own = [errors.get((variation.name, name), {}) for name in DOMAINS]
        base = [errors.get((BASE.name, name), {}) for name in DOMAINS]
        done = [s for s in seeds if all(s in each for each in own)]
        paired = [s for s in done if all(s in each for each in base)]
        average, change = "–", "–"
        if done:
            average = f"{mean(each[s] for each in own for s in done):.1f}"
        if paired and variation is not BASE:
            of_base = mean(each[s] for each in base for s in paired)
            change = f"{mean(each[s] for each in own for s in paired) - of_base:+.2f}"
        shown = [f"{mean(each.values()):.1f}" if each else "–" for each in own]
        numbers = ", ".join(map(str, done)) or "–"
        rows.append([variation.change, *shown, average, change, numbers])
    return rows


def show(cells: Sequence[Cell]) -> None:
    """Print the table."""
    header, *rows = table_rows(cells)
    rows = [[variation.name, *row[1:]] for variation, row in zip(VARIATIONS, rows, strict=True)]
    table = Table(title="validation errors of specialists, percent", title_justify="left")
    for number, column in enumerate(header):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)


def main() -> None:
    """Train the missing cells, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and fast, to test the program")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"default: {RESULTS.name}")
    parser.add_argument("--rows", default="", help="names of rows, separated by commas")
    parser.add_argument("--domains", default="", help="names of domains, separated by commas")
    parser.add_argument("--seeds", default="0", help="seeds, separated by commas")
    parser.add_argument("--show", action="store_true", help="train nothing")
    args = parser.parse_args()
    setting = QUICK if args.quick else Setting()
    file: Path | None = args.json or (None if args.quick else RESULTS)
    cells = read_cells(file)
    names = args.rows.split(",") if args.rows else [each.name for each in VARIATIONS]
    domains = args.domains.split(",") if args.domains else list(DOMAINS)
    if args.quick:
        names, domains = names[:2], domains[1:2] or domains
    if unknown := {*names} - {each.name for each in VARIATIONS} | {*domains} - {*DOMAINS}:
        raise SystemExit(f"unknown rows or domains: {', '.join(sorted(unknown))}")
    done = {(cell["row"], cell["domain"], cell["seed"]) for cell in cells}
    for seed in map(int, args.seeds.split(",")):
        for variation in (each for each in VARIATIONS if each.name in names):
            for name in domains:
                if args.show or (variation.name, name, seed) in done:
                    continue
                cell = train_cell(setting, variation, name, seed)
                cells.append(cell)
                print(f"{variation.name}, {name}, seed {seed}: {cell['error']:.2f} %", flush=True)
                if file is not None:
                    write_cells(file, setting, cells)
    show(cells)


if __name__ == "__main__":
    main()
