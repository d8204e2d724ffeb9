"""Latency on this machine: a universal network and the separate networks that it replaces.

For each domain, one image and a batch pass through the universal network, through the plain network
that it folds to, and through that domain's separate network (also folded). Then one batch of all
domains mixed passes through the universal network, and the same images through the separate
networks one after another. The variants of a row are run in turns, so that other load on the
machine affects all of them; each figure is the median.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onetrunk.nn.modes import eval_mode
from onetrunk.nn.universal import Universal

BATCH = 64
MIN_ROUNDS, MAX_ROUNDS = 3, 50
MIN_CPU_SHARE = 0.75  # processor time divided by elapsed time; if lower, the machine is busy


@dataclass(frozen=True)
class LatencyRow:
    """Medians in milliseconds of one row; None where there is no such variant."""

    domain: str  # "" for the mixed batch
    batch: int
    universal: float | None = None
    folded: float | None = None
    separate: float | None = None


@dataclass(frozen=True)
class Latency:
    """All rows, and how they were measured."""

    rows: tuple[LatencyRow, ...]
    device: str
    threads: int
    trained: bool  # whether the separate networks are those of a baseline, not the folded ones
    busy: bool = False  # whether other processes slowed the measurement


def latency(
    model: Universal,
    separate: Mapping[str, Universal] | None = None,
    *,
    batch: int = BATCH,
    seconds: float = 30.0,
    seed: int = 0,
) -> Latency:
    """Measure the latency of a model.

    Args:
        separate: The networks of a baseline, by domain.
        batch: Images in the larger batches.
        seconds: About how long to measure.
    """
    names = list(model.domains)
    like = next(model.parameters())
    generator = torch.Generator().manual_seed(seed)
    baseline = {n: separate[n].for_domain(n) for n in names if separate and n in separate}
    folded = {n: model.for_domain(n) for n in names}
    row_seconds = seconds / (2 * len(names) + 1)
    rows = []
    start = time.perf_counter(), time.process_time()
    with eval_mode(model), torch.inference_mode():
        for name in names:
            size = model.domains[name].pixels.size
            for count in (1, batch):
                if count < model.trunk.norm_method.min_images:
                    continue
                x = torch.randn(count, 3, *size, generator=generator).to(like)
                variants: dict[str, Callable[[], object]] = {
                    "universal": _call(model, x, name),
                    "folded": _call(folded[name], x),
                }
                if name in baseline:
                    variants["separate"] = _call(baseline[name], x)
                rows.append(LatencyRow(name, count, **medians(variants, row_seconds, like.device)))
        if len(names) > 1:
            rows.append(_mixed(model, baseline or folded, batch, row_seconds, generator))
    elapsed, used = time.perf_counter() - start[0], time.process_time() - start[1]
    threads = torch.get_num_threads()
    busy = used < MIN_CPU_SHARE * elapsed
    return Latency(tuple(rows), str(like.device), threads, bool(baseline), busy)


def _mixed(
    model: Universal,
    separate: Mapping[str, torch.nn.Module],
    batch: int,
    seconds: float,
    generator: torch.Generator,
) -> LatencyRow:
    """Measure a batch whose images are of all domains in turn."""
    like = next(model.parameters())
    names = list(model.domains)
    order = [names[i % len(names)] for i in range(batch)]
    images = [
        torch.randn(3, *model.domains[n].pixels.size, generator=generator).to(like) for n in order
    ]
    grouped = {
        n: torch.stack([x for x, of in zip(images, order, strict=True) if of == n])
        for n in names
        if n in order
    }
    one_size = len({x.shape for x in images}) == 1
    inputs: Tensor | list[Tensor] = torch.stack(images) if one_size else images

    def one_after_another() -> None:
        for name, x in grouped.items():
            separate[name](x)

    variants: dict[str, Callable[[], object]] = {"universal": _call(model, inputs, order)}
    if all(name in separate for name in grouped):
        variants["separate"] = one_after_another
    return LatencyRow("", batch, **medians(variants, seconds, like.device))


def _call(module: torch.nn.Module, *inputs: object) -> Callable[[], object]:
    return lambda: module(*inputs)


def medians(
    variants: Mapping[str, Callable[[], object]], seconds: float, device: torch.device
) -> dict[str, float]:
    """Return the median milliseconds of each variant, run in turns after one untimed run."""
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    start = time.perf_counter()
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and time.perf_counter() - start > seconds:
            break
        for name, run in variants.items():
            times[name].append(_time(run, device))
    return {name: 1000 * statistics.median(each) for name, each in times.items()}


def _time(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - start
