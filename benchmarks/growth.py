"""Measure bytes, loading time, memory and latency of a trunk with 1, 10, 50 and 100 packs.

    python benchmarks/growth.py [--quick] [--json FILE] [--picture docs/pictures/growth.svg]

The packs have parallel adapters, or only norms, and the trunk has one domain before them. Nothing
is trained, as bytes, time and memory do not depend on the weights.

- bytes: all files of the folder `model`;
- load: `onetrunk.load` in a new process;
- memory: the additional resident memory compared with no pack, without mapped files;
- latency of 32 images in one pass: of one domain, of all domains, and of 8 domains.

Measurements with different numbers of packs alternate, so that other load on the machine affects
them equally. A line is fitted to each figure by least squares: the slope is the cost of one more
pack, and the largest deviation shows whether the cost is linear.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from panels import Line, Panel, draw
from table import Figures, median

import onetrunk as ot
from onetrunk.nn.model_files import PACKS, relist

SEED, CLASSES, FEW = 0, 10, 8
KINDS = {"parallel": "parallel", "norm": "none"}  # the adapters in the card of a pack
COLD = """
import ctypes, gc, sys, time
from pathlib import Path
import onetrunk as ot

def resident():
    gc.collect()
    if hasattr(trim := ctypes.CDLL(None), "malloc_trim"):
        trim.malloc_trim(0)  # return unused memory to the system
    line = next(x for x in Path("/proc/self/status").open() if x.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

before, began = resident(), time.perf_counter()
model = ot.load(sys.argv[1])
took = time.perf_counter() - began
print(took, resident() - before)
"""


@dataclass(frozen=True)
class Setting:
    """The size of the measurement."""

    archs: tuple[str, ...]
    counts: tuple[int, ...]  # of packs, ascending from 0
    size: int
    batch: int
    rounds: int  # for latency
    loads: int


def domain_of(name: str, size: int) -> ot.Domain:
    """Return a domain without images."""
    task = ot.Task("classify", "classify", tuple(f"c{i}" for i in range(CLASSES)))
    return ot.Domain(name, None, [task], size=size)


def grown(arch: str, kind: str, setting: Setting, top: Path) -> dict[int, Path]:
    """Write a model folder for each number of packs on one trunk; return them by number."""
    model = ot.Universal(ot.Trunk(arch), [domain_of("first", setting.size)])
    none = ot.save(model, top / f"{arch}-{kind}-0")
    folders, packs = {0: none.parent}, top / f"{arch}-{kind}-packs"
    packs.mkdir()
    names = [f"d{i}" for i in range(1, setting.counts[-1] + 1)]
    for name in names:
        model.add_domain(domain_of(name, setting.size), adapters=KINDS[kind])
        model.pack(name).save(packs / f"{name}.pack")
    for count in setting.counts[1:]:
        folders[count] = top / f"{arch}-{kind}-{count}"
        place = Path(shutil.copytree(none, folders[count] / "model"))
        for name in names[:count]:
            (place / PACKS / f"{name}.pack").hardlink_to(packs / f"{name}.pack")
        relist(place, ["first", *names[:count]])
    return folders


def bytes_of(folder: Path) -> int:
    """Return the size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def loads(folders: Mapping[int, Path], rounds: int) -> dict[int, tuple[float, float]]:
    """Return the seconds and the bytes of memory for loading in a new process."""
    measured: dict[int, list[tuple[float, float]]] = {count: [] for count in folders}
    for _ in range(rounds):
        for count, folder in folders.items():
            command = [sys.executable, "-c", COLD, str(folder)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            took, resident = map(float, output.split())
            measured[count].append((took, resident))
    return {
        count: (median([s for s, _ in each]), median([m for _, m in each]))
        for count, each in measured.items()
    }


def latencies(
    folders: Mapping[int, Path], setting: Setting
) -> dict[str, dict[int, tuple[int, float]]]:
    """Return the number of domains and the seconds, by kind of batch and number of packs."""
    chance = np.random.default_rng(SEED)
    x = torch.randn(setting.batch, 3, setting.size, setting.size)
    calls: list[tuple[str, int, ot.Universal, str | list[str]]] = []
    for count, folder in folders.items():
        model = ot.load(folder)
        every = list(model.domains)
        calls.append(("pure", count, model, every[-1]))
        order = [every[i] for i in chance.permutation(len(every))]
        calls.append(("mixed", count, model, dealt(order, setting.batch)))
        if len(every) >= FEW:
            calls.append(("mixed_few", count, model, dealt(order[:FEW], setting.batch)))
    took: dict[tuple[str, int], list[float]] = {}
    touched: dict[tuple[str, int], int] = {}
    with torch.inference_mode():
        for turn in range(setting.rounds + 2):
            for what, count, model, domain in calls:
                began = time.perf_counter()
                model(x, domain=domain)
                if turn >= 2:
                    took.setdefault((what, count), []).append(time.perf_counter() - began)
                touched[what, count] = 1 if isinstance(domain, str) else len(set(domain))
    found: dict[str, dict[int, tuple[int, float]]] = {}
    for (what, count), each in took.items():
        found.setdefault(what, {})[count] = (touched[what, count], median(each))
    return found


def dealt(names: Sequence[str], images: int) -> list[str]:
    """Return a name for each image; all names occur equally often."""
    return [names[i % len(names)] for i in range(images)]


def fitted(
    figures: Figures,
    name: str,
    points: Sequence[tuple[float, float]],
    scale: float,
    unit: str,
    aim: str = "",
) -> float:
    """Fit a line through points, add its slope and the largest deviation, and return the slope."""
    xs, ys = np.array(points, float).T
    slope, at_none = np.polyfit(xs, ys, 1)
    off = float(np.abs(ys - (slope * xs + at_none)).max())
    share = off / max(float(np.ptp(ys)), 1e-12)
    figures.add(f"{name}_slope", slope * scale, f"{slope * scale:.4g} {unit}", aim)
    shown = f"{off * scale:.3g} {unit.split()[0]}, {share:.1%} of the range"
    figures.add(f"{name}_deviation", off * scale, shown)
    return float(slope)


def measure(
    arch: str, kind: str, setting: Setting, figures: Figures, top: Path
) -> dict[str, list[tuple[float, float]]]:
    """Measure one trunk with packs of one kind; return the points for the chart."""
    folders, of = grown(arch, kind, setting, top), f"{arch}_{kind}"
    one = (folders[setting.counts[-1]] / "model" / "packs" / "d1.pack").stat().st_size
    figures.add(f"{of}_pack_bytes", one, f"{one:,} B")
    size = {n: bytes_of(folder) for n, folder in folders.items()}
    loaded = loads(folders, setting.loads)
    took = latencies(folders, setting)
    memory = {n: loaded[n][1] - loaded[0][1] for n in folders}
    points: dict[str, list[tuple[float, float]]] = {
        "bytes": list(size.items()),
        "load": [(n, s) for n, (s, _) in loaded.items()],
        "memory": list(memory.items()),
        **{what: [(n, s) for n, (_, s) in each.items()] for what, each in took.items()},
    }
    shown = {"bytes": (1e-6, "MB"), "load": (1.0, "s"), "memory": (1e-6, "MB")}
    for what, each in points.items():
        scale, unit = shown.get(what, (1e3, "ms"))
        for count, value in each:
            name = f"{of}_{what}_{int(count)}_packs"
            figures.add(name, value * scale, f"{value * scale:.4g} {unit}")
    for what in ("bytes", "memory"):
        slope = fitted(figures, f"{of}_{what}", points[what], 1e-6, "MB a pack")
        aim = "≈ 1" if what == "bytes" else "1, and the objects that hold it"
        ratio = slope / one
        figures.add(f"{of}_{what}_slope_over_pack_ratio", ratio, f"{ratio:.3f}×", aim)
    fitted(figures, f"{of}_load", points["load"], 1e3, "ms a pack")
    fitted(figures, f"{of}_pure", points["pure"], 1e3, "ms a pack", "≈ 0")
    if len(took.get("mixed_few", {})) > 1:
        fitted(figures, f"{of}_mixed_few", points["mixed_few"], 1e3, "ms a pack", "≈ 0")
    by_touched = list(took["mixed"].values())
    fitted(figures, f"{of}_mixed_by_touched", by_touched, 1e3, "ms a domain touched")
    return points


def picture(every: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], file: Path) -> None:
    """Draw four panels over the number of packs, with a line for each trunk and kind."""
    panels = []
    for what, title, scale in (
        ("bytes", "folder, MB", 1e-6),
        ("load", "loading, s", 1.0),
        ("memory", "memory above that of no pack, MB", 1e-6),
        ("mixed_few", f"32 images of {FEW} domains, ms", 1e3),
    ):
        lines = [
            Line(name.replace("_", ", "), [(x, y * scale) for x, y in points.get(what, ())])
            for name, points in every.items()
        ]
        panels.append(Panel(title, lines))
    file.parent.mkdir(parents=True, exist_ok=True)
    label = "One trunk with 0 to 100 packs: bytes, loading, memory and latency"
    file.write_text(draw(panels, "packs", label), encoding="utf-8")
    print(f"wrote {file}")


def main() -> None:
    """Measure, print the table, write the figures and draw the chart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and fast, to test the program")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="draw the chart to this SVG file"
    )
    args = parser.parse_args()
    torch.manual_seed(SEED)
    setting = Setting(
        archs=("resnet26", "resnet20"),
        counts=(0, 1, 10, 50, 100),
        size=64,
        batch=32,
        rounds=7,
        loads=3,
    )
    if args.quick:
        setting = replace(
            setting, archs=("resnet20",), counts=(0, 8), size=16, batch=16, rounds=1, loads=1
        )
    figures, every = Figures(SEED), {}
    with tempfile.TemporaryDirectory() as top:
        for arch in setting.archs:
            for kind in KINDS:
                every[f"{arch}_{kind}"] = measure(arch, kind, setting, figures, Path(top))
    threads = torch.get_num_threads()
    figures.values |= {"batch": setting.batch, "rounds": setting.rounds, "threads": threads}
    title = f"packs on one trunk, {setting.size}², batch {setting.batch}, {threads} threads"
    figures.finish(title, args.json)
    if args.picture is not None:
        picture(every, args.picture)


if __name__ == "__main__":
    main()
