"""Threads of torch: as many as are faster, on a machine that other programs may use as well.

Torch's threads wait for each other actively. Where they share cores with other work, each of them
waits for one that does not run, and several threads can be many times slower than one. So where
fewer cores are idle than torch has threads, a few steps are timed before training, and the fastest
number is used for the whole run: results with different numbers differ in their last bits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from onetrunk.data.domain import Domain
from onetrunk.errors import printable
from onetrunk.nn.feature_points import NO_POINTS
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.train.objective import restored

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by which users choose the number of threads
SAMPLE = 0.3  # seconds over which idle cores are measured
REPEATS = 2  # timed steps of each number of threads, after one that is not
GAIN = 0.9  # more threads are used if a step takes at most this share of the time


@dataclass(frozen=True)
class Threads:
    """A number of threads, and why it was chosen."""

    count: int
    reason: str


def choose_threads(
    setting: int | None,
    device: torch.device,
    step: Callable[[], None],
    *,
    recorded: int | None = None,
    idle: Callable[[], float] | None = None,
    work: str = "training",
) -> Threads:
    """Return the number of threads of a run.

    Args:
        setting: `train.threads`, if it is a number.
        device: Where the run trains; on a GPU, the number hardly matters.
        step: Runs one step that changes nothing.
        recorded: For a run that continues, its number so far.
        idle: Measures the idle cores; by default `idle_cores`.
        work: What the message says that the threads do.
    """
    now = torch.get_num_threads()
    if setting is not None:
        return Threads(setting, "train.threads")
    if variable := next((name for name in VARIABLES if os.environ.get(name)), None):
        if recorded not in (None, now):
            say(
                f"note: the run was started with {_threads(recorded or 0)}, and {variable} asks "
                f"for {now}: its results will differ in their last bits"
            )
        return Threads(now, variable)
    if recorded is not None:
        return Threads(recorded, "as the run was started")
    if device.type != "cpu" or now == 1:
        return Threads(now, "default")
    free = (idle or idle_cores)()
    if free + 0.5 >= now:
        return Threads(now, "default")
    counts = sorted({1, max(1, min(now, round(free))), now})
    seconds = time_steps(step, counts)
    best = fastest(seconds)
    rates = ", ".join(f"{_threads(n)} {_per_second(s)}" for n, s in seconds.items())
    say(
        printable(
            f"the machine is busy ({free:.1f} idle cores): {work} with {_threads(best)} "
            f"({rates}); {'train.threads' if work == 'training' else VARIABLES[0]} sets the number"
        )
    )
    return Threads(best, f"fastest on a busy machine: {rates}")


def time_steps(step: Callable[[], None], counts: Sequence[int]) -> dict[int, float]:
    """Return the seconds of a step with each number of threads, in rising order.

    A number that is much slower than the best so far is timed only once, as that may take long.
    """
    before = torch.get_num_threads()
    seconds: dict[int, float] = {}
    try:
        for count in counts:
            torch.set_num_threads(count)
            times: list[float] = []
            for repeat in range(1 + REPEATS):
                began = time.perf_counter()
                step()
                times.append(time.perf_counter() - began)
                limit = 2 if repeat else 4  # the first step is slower, as memory is allocated
                if seconds and times[-1] > limit * min(seconds.values()):
                    break
            seconds[count] = min(times[1:] or times)
    finally:
        torch.set_num_threads(before)
    return seconds


def fastest(seconds: dict[int, float]) -> int:
    """Return the number of threads with the fastest steps; more threads must be clearly faster."""
    best = min(seconds)
    for count in sorted(seconds):
        if seconds[count] <= GAIN * seconds[best]:
            best = count
    return best


def idle_cores(seconds: float = SAMPLE) -> float:
    """Return how many cores of this process's are idle, from their use over some time."""
    usable = _cores()
    limit = min(len(usable), _quota())
    try:
        before = _ticks(usable)
        time.sleep(seconds)
        after = _ticks(usable)
    except (OSError, ValueError):  # not on Linux: the mean load of the last minute
        try:
            return max(0.0, limit - os.getloadavg()[0])
        except (OSError, AttributeError):
            return limit
    total = sum(
        (idle - idle_before) / max(1, all_ - all_before)
        for (idle, all_), (idle_before, all_before) in zip(after, before, strict=True)
    )
    return min(limit, total)


def _cores() -> set[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _quota() -> float:
    """Return the cores that a container may use at the same time."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("utf-8").split()
        return float(quota) / float(period)
    except (OSError, ValueError):  # no limit, or not on Linux
        return float("inf")


def _ticks(cores: set[int]) -> list[tuple[int, int]]:
    """Return the idle and all clock ticks of each core, from Linux."""
    found = []
    for line in Path("/proc/stat").read_text("utf-8").splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
            ticks = [int(number) for number in numbers[:8]]
            found.append((ticks[3] + ticks[4], sum(ticks)))  # idle, waiting for a disk
    if len(found) != len(cores):
        raise ValueError("unknown cores")
    return found


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Use this number of threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def probe_step(
    model: Universal, domains: Sequence[Domain], batch: int, name: str | None = None
) -> Callable[[], None]:
    """Return a function that runs a forward and backward pass and leaves everything as it was.

    Args:
        model: The network.
        domains: Domains; the images have the size and batch of the one with most pixels in a batch.
        batch: Images in a batch of a domain that has no number of its own.
        name: The domain whose slots are used; by default the same one.
    """

    def images(domain: Domain) -> int:
        return (domain.batch or batch) * domain.shape.size[0] * domain.shape.size[1]

    largest = max(domains, key=images)
    slots = name or largest.name
    shape = (largest.batch or batch, 3, *largest.shape.size)

    def step() -> None:
        parameter = next(model.parameters())
        chance = torch.Generator().manual_seed(0)
        x = torch.randn(shape, generator=chance, dtype=parameter.dtype)
        x_BCHW = x.contiguous(memory_format=torch.channels_last)
        modes = {module: module.training for module in model.modules()}
        gradients = {p: p.grad for p in model.parameters()}
        with torch.random.fork_rng(devices=[]), _restored_buffers(model):
            model.train()
            try:
                (inside,) = model.joined([x_BCHW], [slots], NO_POINTS)
                total = torch.stack([t.float().mean() for t in inside.predictions.values()]).sum()
                if total.requires_grad:
                    total.backward()  # type: ignore[no-untyped-call]
            finally:
                for module, mode in modes.items():
                    module.training = mode
                for p, gradient in gradients.items():
                    p.grad = gradient

    return step


@contextmanager
def _restored_buffers(model: Universal) -> Iterator[None]:
    with torch.no_grad(), restored(list(model.buffers())), torch.enable_grad():
        yield


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _per_second(seconds: float) -> str:
    return f"{1 / max(seconds, 1e-9):.3g} steps/s"
