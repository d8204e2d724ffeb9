"""Time the training steps of one network with and without teachers and loss weighting.

- distilled over joint: the frozen specialist of each domain, with the same trunk, is evaluated on
  every batch (features through an aligner, and predictions), with 2 and with 10 domains; and the
  same with precomputed views;
- weightings over equal: one domain with three dense tasks, with weightings that need nothing more,
  another forward pass, or the gradient of each task.

Steps of all variants alternate, so that other load on the machine affects them equally; the first
round is not counted. The weights are random, as the time does not depend on them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from table import Figures, median, options

import onetrunk as ot
from onetrunk.config import Distill, Train
from onetrunk.train.device import choose_device, deterministic
from onetrunk.train.distill.precompute import precompute
from onetrunk.train.distill.stored_teachers import StoredTeacher
from onetrunk.train.distill.teachers import Specialist, Teacher
from onetrunk.train.learner import Learner

SEED, ARCH, RATE = 0, "resnet20", 0.05
TASKS = ("segment", "depth", "normals")
WEIGHTINGS = ("uncertainty", "famo", "pcgrad")


@dataclass(frozen=True)
class Setting:
    """The size of the measurement."""

    batch: int
    rounds: int  # counted
    count: int  # steps in a round
    domains: tuple[int, ...]
    dense: int  # images of a dense batch

    def train(self, **more: Any) -> Train:
        """Return the default settings with SGD as the optimizer."""
        given = {"steps": 10_000, "batch": self.batch, "optimizer": "sgd", "lr": RATE, **more}
        return Train.of(given)


def specialist(domain: ot.Domain) -> Teacher:
    """Return a teacher for one domain, with the same trunk."""
    model = ot.Universal(ot.Trunk(ARCH, sharing="none"), [domain]).eval()
    return Specialist(model, domain.name, domain, [task.name for task in domain.tasks], "fresh")


class TimedLearner:
    """A learner whose steps are timed."""

    def __init__(
        self,
        domains: Sequence[ot.Domain],
        train: Train,
        device: torch.device,
        teachers: Mapping[str, Sequence[Teacher]] | None = None,
        distill: Distill | None = None,
    ) -> None:
        model = ot.Universal(ot.Trunk(ARCH), domains)
        self.learner = Learner(
            model, domains, train, device, SEED, teachers or {}, distill or Distill()
        )
        self.learner.model.train()
        self.passes = self.learner.passes()
        self.seconds: list[float] = []

    def turn(self, count: int) -> None:
        """Time `count` steps."""
        began = time.perf_counter()
        for _ in range(count):
            self.learner.step(next(self.passes))
            self.learner.clock.tick()
        if self.learner.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - began)

    def close(self) -> None:
        """Stop preparing batches."""
        self.passes.close()


def in_turns(learners: Mapping[str, TimedLearner], setting: Setting) -> dict[str, list[float]]:
    """Return the seconds of each learner in each round, without the first round."""
    with ExitStack() as stack:
        for timed in learners.values():
            stack.enter_context(closing(timed))
        for _ in range(setting.rounds + 1):
            for timed in learners.values():
                timed.turn(setting.count)
    return {name: timed.seconds[1:] for name, timed in learners.items()}


def over(
    figures: Figures, took: Mapping[str, list[float]], base: str, aims: Mapping[str, str]
) -> None:
    """Add the ratio of each variant to the base: the median over rounds."""
    for name, each in took.items():
        if name != base:
            ratio = median([a / b for a, b in zip(each, took[base], strict=True)])
            figures.add(f"{name}_over_{base}_ratio", ratio, f"{ratio:.3f}×", aims.get(name, ""))


def distilled(figures: Figures, setting: Setting, device: torch.device, cache: Path) -> None:
    """Time distillation from specialists, by number of domains and by feature loss."""
    for count in setting.domains:
        domains = [ot.Domain(f"d{i}", "pocket:fashion", size=32, cache=cache) for i in range(count)]
        teachers = {domain.name: [specialist(domain)] for domain in domains}
        learners = {"joint": TimedLearner(domains, setting.train(), device)}
        for loss in ("l2", "cka", "cosine"):
            settings = Distill(teachers="fresh", features=loss)
            learners[loss] = TimedLearner(domains, setting.train(), device, teachers, settings)
        if count == setting.domains[0]:
            settings = Distill(teachers="fresh", features="cka")
            learners["views"] = TimedLearner(
                domains, setting.train(), device, precomputed(domains, cache), settings
            )
        took = in_turns(learners, setting)
        over(
            figures,
            {f"{name}_{count}_domains": each for name, each in took.items()},
            f"joint_{count}_domains",
            {f"{n}_{count}_domains": "≤ 1.1" if n == "views" else "≤ 1.45" for n in took},
        )


def precomputed(domains: Sequence[ot.Domain], folder: Path) -> dict[str, list[Teacher]]:
    """Return teachers with four precomputed views of every image."""
    found: dict[str, list[Teacher]] = {}
    for domain in domains:
        tasks = [task.name for task in domain.tasks]
        file = folder / f"{domain.name}.safetensors"
        precompute(specialist(domain), domain, file, seed=SEED)
        found[domain.name] = [StoredTeacher(file, domain, tasks, True)]
    return found


def weighted(figures: Figures, setting: Setting, device: torch.device, cache: Path) -> None:
    """Time the weightings of three dense tasks of one domain."""
    rooms = [ot.Domain("rooms", "pocket:rooms", list(TASKS), cache=cache)]
    train = {"equal": setting.train(batch=setting.dense)}
    for name in WEIGHTINGS:
        train[name] = setting.train(batch=setting.dense, weighting=name)
    learners = {name: TimedLearner(rooms, each, device) for name, each in train.items()}
    took = in_turns(learners, replace(setting, count=max(1, setting.count // 4)))
    over(figures, took, "equal", {"pcgrad": f"{len(TASKS)} backward passes"})


def main() -> None:
    """Measure, print the table, and write the figures."""
    args = options((__doc__ or "").split("\n")[0])
    torch.manual_seed(SEED)
    setting = Setting(batch=64, rounds=4, count=4, domains=(2, 10), dense=16)
    if args.quick:
        setting = Setting(batch=4, rounds=1, count=1, domains=(2, 3), dense=2)
    figures = Figures(SEED)
    device = choose_device()
    with tempfile.TemporaryDirectory() as scratch, deterministic(True, device):
        cache = Path(scratch) / "cache"
        distilled(figures, setting, device, cache)
        weighted(figures, setting, device, cache)
    threads = torch.get_num_threads()
    figures.values |= {"batch": setting.batch, "rounds": setting.rounds, "threads": threads}
    figures.finish(f"distilling, {ARCH}, {threads} threads, batch {setting.batch}", args.json)


if __name__ == "__main__":
    main()
