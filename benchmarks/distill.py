"""What teachers and weightings cost: steps of one network with and without them, in turns.

- distilled over joint: every batch is looked at by its domain's own frozen specialist of the same
  trunk (features through an aligner, and predictions), with 2 and with 10 domains; the same with the
  teachers' views looked at beforehand;
- balanced over equal: one domain with three dense tasks, whose weighting needs nothing, another
  forward pass, or the units' gradients.

They take turns, so that whatever else the machine does meets all of them; the first turn does not
count. Weights are fresh: only time is measured here, and it does not depend on them.
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
    """How much to measure."""

    batch: int
    rounds: int  # that count
    count: int  # steps of a turn
    domains: tuple[int, ...]
    dense: int  # images of a dense batch

    def train(self, **more: Any) -> Train:
        """The defaults, but for the optimizer."""
        given = {"steps": 10_000, "batch": self.batch, "optimizer": "sgd", "lr": RATE, **more}
        return Train.of(given)


def specialist(domain: ot.Domain) -> Teacher:
    """A network of the same trunk for one domain."""
    model = ot.Universal(ot.Trunk(ARCH, sharing="none"), [domain]).eval()
    return Specialist(model, domain.name, domain, [task.name for task in domain.tasks], "fresh")


class Going:
    """A learner in the middle of its training."""

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
        """So many steps, timed."""
        began = time.perf_counter()
        for _ in range(count):
            self.learner.step(next(self.passes))
            self.learner.clock.tick()
        if self.learner.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - began)

    def close(self) -> None:
        """No more steps are prepared."""
        self.passes.close()


def in_turns(goings: Mapping[str, Going], setting: Setting) -> dict[str, list[float]]:
    """Seconds of each by turn, without the first."""
    with ExitStack() as stack:
        for going in goings.values():
            stack.enter_context(closing(going))
        for _ in range(setting.rounds + 1):
            for going in goings.values():
                going.turn(setting.count)
    return {name: going.seconds[1:] for name, going in goings.items()}


def over(
    figures: Figures, took: Mapping[str, list[float]], base: str, aims: Mapping[str, str]
) -> None:
    """Each against the base, pair by pair."""
    for name, each in took.items():
        if name != base:
            ratio = median([a / b for a, b in zip(each, took[base], strict=True)])
            figures.add(f"{name}_over_{base}_ratio", ratio, f"{ratio:.3f}×", aims.get(name, ""))


def distilled(figures: Figures, setting: Setting, device: torch.device, cache: Path) -> None:
    """With a specialist for each domain, by number of domains and by feature loss."""
    for count in setting.domains:
        domains = [ot.Domain(f"d{i}", "pocket:fashion", size=32, cache=cache) for i in range(count)]
        teachers = {domain.name: [specialist(domain)] for domain in domains}
        goings = {"joint": Going(domains, setting.train(), device)}
        for loss in ("l2", "cka", "cosine"):
            said = Distill(teachers="fresh", features=loss)
            goings[loss] = Going(domains, setting.train(), device, teachers, said)
        if count == setting.domains[0]:
            said = Distill(teachers="fresh", features="cka")
            goings["views"] = Going(domains, setting.train(), device, looked(domains, cache), said)
        took = in_turns(goings, setting)
        over(
            figures,
            {f"{name}_{count}_domains": each for name, each in took.items()},
            f"joint_{count}_domains",
            {f"{n}_{count}_domains": "≤ 1.1" if n == "views" else "≤ 1.45" for n in took},
        )


def looked(domains: Sequence[ot.Domain], folder: Path) -> dict[str, list[Teacher]]:
    """Teachers that have looked at four views of every image beforehand."""
    found: dict[str, list[Teacher]] = {}
    for domain in domains:
        tasks = [task.name for task in domain.tasks]
        file = folder / f"{domain.name}.safetensors"
        precompute(specialist(domain), domain, file, seed=SEED)
        found[domain.name] = [StoredTeacher(file, domain, tasks, True)]
    return found


def weighted(figures: Figures, setting: Setting, device: torch.device, cache: Path) -> None:
    """Three dense tasks of one domain."""
    rooms = [ot.Domain("rooms", "pocket:rooms", list(TASKS), cache=cache)]
    train = {"equal": setting.train(batch=setting.dense)}
    for name in WEIGHTINGS:
        train[name] = setting.train(batch=setting.dense, weighting=name)
    goings = {name: Going(rooms, each, device) for name, each in train.items()}
    took = in_turns(goings, replace(setting, count=max(1, setting.count // 4)))
    over(figures, took, "equal", {"pcgrad": f"{len(TASKS)} backward passes"})


def main() -> None:
    """Measure, print, keep."""
    asked = options((__doc__ or "").split("\n")[0])
    torch.manual_seed(SEED)
    setting = Setting(batch=64, rounds=4, count=4, domains=(2, 10), dense=16)
    if asked.quick:
        setting = Setting(batch=4, rounds=1, count=1, domains=(2, 3), dense=2)
    figures = Figures(SEED)
    device = choose_device()
    with tempfile.TemporaryDirectory() as scratch, deterministic(True, device):
        cache = Path(scratch) / "cache"
        distilled(figures, setting, device, cache)
        weighted(figures, setting, device, cache)
    threads = torch.get_num_threads()
    figures.values |= {"batch": setting.batch, "rounds": setting.rounds, "threads": threads}
    figures.finish(f"distilling, {ARCH}, {threads} threads, batch {setting.batch}", asked.json)


if __name__ == "__main__":
    main()
