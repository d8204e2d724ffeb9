"""The loader: steps of normalized, augmented batches, made by a thread or by data workers."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from onetrunk.data.augment import Augment, apply
from onetrunk.data.check_domains import check_domains
from onetrunk.data.domain import Domain
from onetrunk.data.sampling import Draw, Fixed, Sampler
from onetrunk.data.split import Split
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed, OnetrunkError


@dataclass
class Batch:
    """Images of one domain with their targets.

    Attributes:
        images: (B, 3, H, W), normalized, channels last in memory.
        targets: By task, as in `Split`.
        places: Positions of the images in the split.
        views: Which view of each image.
    """

    domain: str
    images: torch.Tensor
    targets: dict[str, torch.Tensor]
    places: NDArray[np.int64]
    views: NDArray[np.int64]

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Batch:
        """Return the batch on a device, with images of this dtype."""
        images = self.images.to(device, dtype, non_blocking=True)
        targets = {task: t.to(device, non_blocking=True) for task, t in self.targets.items()}
        return replace(self, images=images, targets=targets)


AHEAD = 2  # steps made in advance
Plan = tuple[list[Draw], dict[str, Any]]  # the draws of a step, and the sampler's state after it
Step = tuple[list[Batch] | OnetrunkError, dict[str, Any]]  # its batches, and the same state


class _Steps(Dataset[Step]):
    """Makes the batches of a plan; each data worker has a copy."""

    def __init__(self, domains: Sequence[Domain]) -> None:
        self.parts: dict[str, tuple[Split, Augment, tuple[Task, ...]]] = {
            domain.name: (domain.train, domain.augmentation, domain.tasks) for domain in domains
        }

    def __getitem__(self, plan: Plan) -> Step:
        draws, state = plan
        try:
            return [make_batch(draw, *self.parts[draw.domain]) for draw in draws], state
        except OnetrunkError as error:  # a DataLoader would add the worker's traceback to it
            return error, state


def make_batch(draw: Draw, split: Split, augment: Augment, tasks: tuple[Task, ...]) -> Batch:
    """Make the batch of a draw: augmented, normalized images with their targets."""
    stored, labels = split.stored(draw.places)
    # drawn by the image's position in the index: the same if other images leave the split
    views = augment.draw(draw.seed, split.rows[draw.places], draw.views, split.pixels)
    images, targets = apply(stored, labels, views, split.pixels, tasks)
    return Batch(draw.domain, images, targets, draw.places, draw.views)


class Loader:
    """An endless iterator over steps, each a list of batches.

        for batches in Loader(domains, batch=64, seed=0):
            ...

    Args:
        batch: The batch size of domains that do not set one.
        sampling: A built-in sampler, or "package.module:thing".
        temperature: T of the sampler `temperature`.
        workers: Processes that decode and augment in advance. They are useful if images are not
            cached; batches of cached images are made by a thread.
        pin: Whether batches are in pinned memory.
        fixed: The domains with a limited number of views.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        batch: int = 64,
        *,
        seed: int = 0,
        sampling: str = "round-robin",
        temperature: float = 2.0,
        workers: int = 0,
        pin: bool = False,
        fixed: Mapping[str, Fixed] = MappingProxyType({}),
    ) -> None:
        if not domains:
            raise BadInput("expected at least one domain")
        check_domains(domains)
        self.workers = workers
        self.pin = pin
        self.sampler = Sampler(
            {domain.name: len(domain.train) for domain in domains},
            {domain.name: domain.batch or batch for domain in domains},
            seed,
            sampling,
            temperature,
            fixed,
        )
        if self.sampler.joined and len({domain.pixels.size for domain in domains}) > 1:
            raise BadInput(
                "joined batches need one image size for all domains",
                got=", ".join(f"{domain.name} {domain.pixels.size}" for domain in domains),
            )
        self._steps = _Steps(domains)
        self._state = self.sampler.state()

    def __iter__(self) -> Iterator[list[Batch]]:
        self.sampler.restore(self._state)  # workers of an earlier loop may have drawn in advance
        steps = self._ahead() if self.workers == 0 else self._by_workers()
        for batches, state in _alive(steps):
            if isinstance(batches, OnetrunkError):
                del steps  # the traceback has this frame, and would keep the workers alive
                raise batches
            self._state = state
            yield batches

    def _by_workers(self) -> Iterator[Step]:
        """Yield steps made by data workers."""
        loader = DataLoader(
            self._steps,
            batch_size=None,
            sampler=self._plans(),
            num_workers=self.workers,
            pin_memory=self.pin,
            worker_init_fn=_ignore_ctrl_c,
            generator=torch.Generator(),  # otherwise each loop draws from the global one
        )
        with _without_child_handler():
            steps = iter(loader)
        yield from steps

    def _ahead(self) -> Iterator[Step]:
        """Yield steps made by one thread in advance.

        The thread uses one core. The others are for the training, and torch's threads become many
        times slower if they wait for a busy core.
        """
        plans = self._plans()
        waiting: deque[Future[Step]] = deque()
        pool = ThreadPoolExecutor(1, "onetrunk-batches", torch.set_num_threads, (1,))
        try:
            waiting.extend(pool.submit(self._steps.__getitem__, next(plans)) for _ in range(AHEAD))
            while True:
                done = waiting.popleft().result()
                waiting.append(pool.submit(self._steps.__getitem__, next(plans)))
                yield done
        finally:
            for step in waiting:
                step.cancel()
            pool.shutdown(wait=False)

    def state(self) -> dict[str, Any]:
        """Return the state after the last step that was yielded."""
        return self._state

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state, at any step of an epoch."""
        self.sampler.restore(state)
        self._state = self.sampler.state()

    def _plans(self) -> Iterator[Plan]:
        while True:
            draws = self.sampler.next()
            yield draws, self.sampler.state()


def _ignore_ctrl_c(_: int) -> None:
    """Ignore the SIGINT that a terminal sends to every process; the main process handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _without_child_handler() -> Iterator[None]:
    """Restore the handler of SIGCHLD, which torch's first loader replaces.

    Torch's handler raises an error as soon as a worker dies, possibly while a checkpoint is
    written. Waiting for the next step detects the dead worker as well.
    """
    number = getattr(signal, "SIGCHLD", None)  # not on Windows
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL if before is None else before)


def _alive(steps: Iterator[Step]) -> Iterator[Step]:
    """Yield the steps; raise `Failed` if a data worker has died."""
    while True:
        try:
            step = next(steps)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise _dead(str(error).split("\n")[0].rstrip(". ")) from None
        except (ConnectionError, EOFError) as error:  # while a step was being passed
            raise _dead(f"{type(error).__name__} ({error})") from None
        yield step


def _dead(reason: str) -> Failed:
    return Failed(
        "a data worker died; it may have run out of memory",
        got=reason,
        try_="resume with fewer workers, or with workers = 0",
    )
