"""Steps of normalized, augmented batches, made here or by worker processes: the same either way."""

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
from onetrunk.data.domain import Domain, check_domains
from onetrunk.data.sampling import Draw, Fixed, Sampler
from onetrunk.data.split import Split
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed, OnetrunkError


@dataclass
class Batch:
    """Images of one domain with their targets; `places` are theirs in the split."""

    domain: str
    images: torch.Tensor  # (B, 3, H, W), normalized, channels last in memory
    targets: dict[str, torch.Tensor]  # by task, as Split says
    places: NDArray[np.int64]
    views: NDArray[np.int64]

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Batch:
        """The same on a device, its images of this type."""
        images = self.images.to(device, dtype, non_blocking=True)
        targets = {task: t.to(device, non_blocking=True) for task, t in self.targets.items()}
        return replace(self, images=images, targets=targets)


AHEAD = 2  # steps made before they are asked for

Plan = tuple[list[Draw], dict[str, Any]]  # a step's draws, and the sampler's state after it


Step = tuple[list[Batch] | OnetrunkError, dict[str, Any]]  # what a worker hands back


class _Steps(Dataset[Step]):
    """Turns a plan into batches; what a worker process holds."""

    def __init__(self, domains: Sequence[Domain]) -> None:
        self.parts: dict[str, tuple[Split, Augment, tuple[Task, ...]]] = {
            domain.name: (domain.train, domain.augmentation, domain.tasks) for domain in domains
        }

    def __getitem__(self, plan: Plan) -> Step:
        draws, state = plan
        try:
            return [self._batch(draw) for draw in draws], state
        except OnetrunkError as error:  # raised in a worker it would come with a page of traces
            return error, state

    def _batch(self, draw: Draw) -> Batch:
        return make_batch(draw, *self.parts[draw.domain])


def make_batch(draw: Draw, split: Split, augment: Augment, tasks: tuple[Task, ...]) -> Batch:
    """The images of a draw, varied and normalized, with their targets."""
    images, targets = split.stored(draw.places)
    # an image's own number: the view stays the same if others leave the split
    views = augment.draw(draw.seed, split.rows[draw.places], draw.views, split.pixels)
    seen, moved = apply(images, targets, views, split.pixels, tasks)
    return Batch(draw.domain, seen, moved, draw.places, draw.views)


class Loader:
    """`for batches in Loader(domains, batch=64, seed=0)`: endless steps; take as many as you need.

    `workers`: processes that decode and augment ahead. Cached images need none (a thread makes
    their batches); images read straight from their files do. `state()` belongs to the last step
    that was handed out, however far the workers are ahead. `fixed`: of domains of which a few views
    were drawn beforehand, how many and with which seed.
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
            raise BadInput("a loader needs at least one domain")
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
        self.sampler.restore(self._state)  # workers of an earlier loop may have drawn ahead
        steps = self._ahead() if self.workers == 0 else self._by_workers()
        for batches, state in _alive(steps):
            if isinstance(batches, OnetrunkError):
                del steps  # the error holds this frame: workers would wait for the next collection
                raise batches
            self._state = state
            yield batches

    def _by_workers(self) -> Iterator[Step]:
        """Steps made by worker processes."""
        loader = DataLoader(
            self._steps,
            batch_size=None,
            sampler=self._plans(),
            num_workers=self.workers,
            pin_memory=self.pin,
            worker_init_fn=_ignore_ctrl_c,
            generator=torch.Generator(),  # else each loop draws from the caller's
        )
        with _deaths_are_asked_for():
            steps = iter(loader)
        yield from steps

    def _ahead(self) -> Iterator[Step]:
        """Steps made by one thread, a little ahead of whoever learns from them.

        It computes on one core: the other cores are the learner's, and torch's own threads, when
        they wait for a busy core, take many times longer than one that works alone.
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
        """A few numbers; `restore` goes on after the step that was handed out last."""
        return self._state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, in mid-epoch too."""
        self.sampler.restore(state)
        self._state = self.sampler.state()

    def _plans(self) -> Iterator[Plan]:
        while True:
            draws = self.sampler.next()
            yield draws, self.sampler.state()


def _ignore_ctrl_c(_: int) -> None:
    """A terminal sends it to every process; the one that learns decides what becomes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _deaths_are_asked_for() -> Iterator[None]:
    """Without the handler of ended child processes that torch sets for its first loader.

    It raises a worker's death in the middle of whatever this process does then: half a step of
    learning, or half a checkpoint. The death is found too, in a moment, by who waits for a step.
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
    """The steps; a worker process that dies is said in our words."""
    while True:
        try:
            step = next(steps)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            died = str(error).split("\n")[0].rstrip(". ")
            raise _dead(died) from None
        except (ConnectionError, EOFError) as error:  # in the middle of handing over a step
            raise _dead(f"{type(error).__name__} ({error})") from None
        yield step


def _dead(how: str) -> Failed:
    return Failed(
        f"a process that reads images died: {how}; try: go on with fewer workers, or with "
        "workers = 0 (its memory may have run out)"
    )
