"""Latency, measured here: one universal network beside the separate networks that it replaces.

For each domain one image and a batch, through the universal network as it is, through the plain
network that it folds to, and through that domain's separate network (folded too); then one batch
in which all domains are mixed, in one pass, and the same images through the separate networks one
after another. All ways of one row take turns, so that whatever else the machine does meets them
alike; each figure is the median.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onetrunk.eval.features import evaluating
from onetrunk.nn.universal import Universal

BATCH = 64
LEAST, MOST = 3, 50  # rounds
IDLE = 0.75  # of the time one core at least is ours, or the machine is busy with something else


@dataclass(frozen=True)
class Timed:
    """Medians in milliseconds of one row; None where a way does not exist."""

    domain: str  # "" for the mixed batch
    batch: int
    universal: float | None
    folded: float | None
    separate: float | None


@dataclass(frozen=True)
class Latency:
    """All rows, and where they were measured."""

    rows: tuple[Timed, ...]
    device: str
    threads: int
    trained: bool  # whether the separate networks are a baseline's, or the bare trunk made plain
    busy: bool = False  # whether others had so much of the processor that times are too long


def latency(
    model: Universal,
    separate: Mapping[str, Universal] | None = None,
    *,
    batch: int = BATCH,
    seconds: float = 30.0,
    seed: int = 0,
) -> Latency:
    """Time the model; `separate`: the networks of a baseline, by domain. About so many seconds."""
    names = list(model.domains)
    like = next(model.parameters())
    chance = torch.Generator().manual_seed(seed)
    alone = {n: separate[n].for_domain(n) for n in names if separate and n in separate}
    folded = {n: model.for_domain(n) for n in names}
    each = seconds / (2 * len(names) + 1)
    rows = []
    began = time.perf_counter(), time.process_time()
    with evaluating(model), torch.inference_mode():
        for name in names:
            size = model.domains[name].pixels.size
            for count in (1, batch):
                if count < model.trunk.norm_method.min_images:
                    continue  # it keeps no statistics, and answers no single image
                x = torch.randn(count, 3, *size, generator=chance).to(like)
                ways: dict[str, Callable[[], object]] = {
                    "universal": _call(model, x, name),
                    "folded": _call(folded[name], x),
                }
                if name in alone:
                    ways["separate"] = _call(alone[name], x)
                found = medians(ways, each, like.device)
                rows.append(_row(name, count, found))
        if len(names) > 1:
            rows.append(_mixed(model, alone or folded, batch, each, chance))
    took, had = time.perf_counter() - began[0], time.process_time() - began[1]
    threads = torch.get_num_threads()
    return Latency(tuple(rows), str(like.device), threads, bool(alone), had < IDLE * took)


def _mixed(
    model: Universal,
    alone: Mapping[str, torch.nn.Module],
    batch: int,
    seconds: float,
    chance: torch.Generator,
) -> Timed:
    """One batch of all domains in turn."""
    like = next(model.parameters())
    names = list(model.domains)
    order = [names[i % len(names)] for i in range(batch)]
    images = [
        torch.randn(3, *model.domains[n].pixels.size, generator=chance).to(like) for n in order
    ]
    grouped = {
        n: torch.stack([x for x, of in zip(images, order, strict=True) if of == n])
        for n in names
        if n in order
    }
    one_size = len({x.shape for x in images}) == 1
    given: Tensor | list[Tensor] = torch.stack(images) if one_size else images

    def separately() -> None:
        for name, x in grouped.items():
            alone[name](x)

    ways: dict[str, Callable[[], object]] = {"universal": _call(model, given, order)}
    if all(name in alone for name in grouped):
        ways["separate"] = separately
    return _row("", batch, medians(ways, seconds, like.device))


def _call(module: torch.nn.Module, *inputs: object) -> Callable[[], object]:
    return lambda: module(*inputs)


def _row(domain: str, batch: int, found: Mapping[str, float]) -> Timed:
    return Timed(domain, batch, found.get("universal"), found.get("folded"), found.get("separate"))


def medians(
    ways: Mapping[str, Callable[[], object]], seconds: float, device: torch.device
) -> dict[str, float]:
    """Milliseconds of each way, in turns, after one run that does not count."""
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    began = time.perf_counter()
    for done in range(MOST):
        if done >= LEAST and time.perf_counter() - began > seconds:
            break
        for name, way in ways.items():
            times[name].append(_run(way, device))
    return {name: 1000 * statistics.median(taken) for name, taken in times.items()}


def _run(way: Callable[[], object], device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    began = time.perf_counter()
    way()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - began
