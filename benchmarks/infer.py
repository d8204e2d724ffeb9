"""Compare inference on a CPU in pieces of a batch with inference of the uncut batch.

    python benchmarks/infer.py [--quick] [--json FILE]

One thread. A pure batch has images of one domain, a mixed batch those of several in turn; `loop`
calls the network once per domain. `uncut` runs a batch in one pass, in the layout in which images
are given. Rounds run all variants in turns, so that other load on the machine affects all of them;
a time is the median of the processor time of its rounds. Evaluation is `evaluate` on a domain that
is cached, and `uncut` its batches of 256 images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch
from PIL import Image
from table import Figures, median, options

import onetrunk as ot
from onetrunk.nn import pieces

TRUNKS = (
    ("timm/tf_efficientnet_lite0", 64),
    ("timm/tf_efficientnet_lite0", 96),
    ("resnet20", 48),
    ("timm/resnet18", 64),
)
BATCH, ROUNDS, DOMAINS, CLASSES, SEED = 64, 15, 10, 10, 0
EVALUATED = 512  # images
Run = Callable[[], object]


@contextmanager
def uncut(on: bool = True) -> Iterator[None]:
    """Run every batch in one pass, as given."""
    if not on:
        yield
        return
    with mock.patch.object(pieces, "applies", return_value=False):
        yield


def times(runs: Mapping[str, tuple[bool, Run]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each run by round, after one round that is not counted.

    Args:
        runs: Whether each runs uncut, and what runs.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, (whole, run) in runs.items():
            with uncut(whole):
                start = time.process_time()
                run()
                seconds = time.process_time() - start
            if number:
                found[name].append(seconds)
    return found


def network(arch: str, size: int) -> ot.Universal:
    """Return a network with random weights and ten domains."""
    task = ot.Task("classify", "classify", tuple(f"c{i}" for i in range(CLASSES)))
    domains = [ot.Domain(f"d{i}", None, [task], size=size) for i in range(DOMAINS)]
    return ot.Universal(ot.Trunk(arch), domains).eval()


def measure(arch: str, size: int, batch: int, rounds: int, figures: Figures) -> None:
    """Add the figures of pure and mixed batches."""
    model = network(arch, size)
    x = torch.randn(batch, 3, size, size)
    runs: dict[str, tuple[bool, Run]] = {}

    def add(name: str, run: Run) -> None:
        runs[f"uncut {name}"] = True, run
        runs[name] = False, run

    def mixed(count: int) -> Run:
        names = [f"d{i % count}" for i in range(batch)]
        return lambda: model(x, domain=names)

    def loop(count: int) -> Run:
        parts = [x[i::count] for i in range(count)]
        return lambda: [model(part, domain=f"d{i}") for i, part in enumerate(parts)]

    add("pure", lambda: model(x, domain="d0"))
    for count in (3, DOMAINS):
        add(f"mixed {count}", mixed(count))
        add(f"loop {count}", loop(count))
    with torch.inference_mode():
        found = {name: median(each) for name, each in times(runs, rounds).items()}
    short = f"{arch.removeprefix('timm/')}_{size}"

    def ratio(name: str, one: str, other: str, aim: str = "") -> None:
        shown = f"{found[one] / found[other]:.3f} of {found[other] * 1e3:.1f} ms"
        figures.add(f"{short}_{name}_ratio", found[one] / found[other], shown, aim)

    ratio("pure_over_uncut", "pure", "uncut pure")
    for count in (3, DOMAINS):
        ratio(f"mixed_{count}_over_uncut", f"mixed {count}", f"uncut mixed {count}")
        better = min(
            f"uncut mixed {count}",
            f"uncut loop {count}",
            f"loop {count}",
            key=lambda name: found[name],
        )
        ratio(f"mixed_{count}_over_best_other", f"mixed {count}", better, "at most 1.05")


def evaluation(arch: str, size: int, images: int, rounds: int, figures: Figures) -> None:
    """Add the figure of an evaluation."""
    generator = np.random.default_rng(SEED)
    with TemporaryDirectory() as folder:
        for place in range(images + 2 * CLASSES):
            split = "test" if place < images else ("train", "val")[place % 2]
            label = f"c{(place if place < images else place // 2) % CLASSES}"
            path = Path(folder, split, label, f"{place}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, (size, size, 3), np.uint8)).save(path)
        domain = ot.Domain("d0", f"folder:{folder}", size=size)
        model = ot.Universal(ot.Trunk(arch), [domain]).eval()

        def run() -> object:
            return ot.evaluate(model, [domain], intervals=False, progress=False)

        found = times({"uncut": (True, run), "cut": (False, run)}, rounds)
    old, new = median(found["uncut"]), median(found["cut"])
    name = f"{arch.removeprefix('timm/')}_{size}_evaluation_uncut_over_cut_ratio"
    aim = "at least 1.3" if "lite0" in arch else ""
    figures.add(name, old / new, f"{old / new:.3f}, {new * 1e3:.0f} ms", aim)


def main() -> None:
    """Measure, print the table, and write the figures."""
    given = options((__doc__ or "").split("\n")[0])
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    batch, rounds, images = (16, 1, 40) if given.quick else (BATCH, ROUNDS, EVALUATED)
    figures = Figures(SEED)
    for arch, size in TRUNKS[2:3] if given.quick else TRUNKS:
        measure(arch, size, batch, rounds, figures)
        evaluation(arch, size, images, 1 if given.quick else ROUNDS // 3, figures)
    figures.values |= {"batch": batch, "rounds": rounds, "threads": 1}
    figures.finish(f"inference in pieces: CPU, one thread, batch {batch}", given.json)


if __name__ == "__main__":
    main()
