"""Time the training loop of onetrunk, a hand-written loop, and one with torchvision loaders.

Five embedded domains, resnet20 at 32×32, a batch of 64 from each in a step, the same optimizer:

- joint: `fit` in train/loop.py: a trunk with banks, cached and augmented images, a run folder with
  a log line per step, checkpoints at the default interval, and all checks;
- plain: a hand-written loop with the plain trunk and a head for each domain, on normalized tensors
  in memory: the same images in the same batches, without augmentation and checks;
- usual: that loop with ImageFolder and a DataLoader with two workers for each domain, which read
  the same images from PNG files through torchvision's transforms (crop, flip, normalize).

The loops alternate in one process, so that other load on the machine affects them equally: a logger
of the joint run runs the others between its steps. The first round, the first steps of every round
and all validation are not counted; the joint loop includes its share of checkpoints.

Then the cost of an image with 2, 10 and 50 domains (the same images under other names) and of a
checkpoint is measured.
"""

from __future__ import annotations

import io
import itertools
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from table import Figures, median, options
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import onetrunk as ot
from onetrunk.config import Train
from onetrunk.nn import networks as nets
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.device import deterministic
from onetrunk.train.learner import Learner
from onetrunk.train.loggers import Logger, make_logger
from onetrunk.train.loop import CHECKPOINT, fit, save

SEED, ARCH, SIZE, PAD, WORKERS, RATE = 0, "resnet20", 32, 4, 2, 0.05
NAMES = ("digits", "fashion", "emoji", "creatures", "flags")
CPU = torch.device("cpu")

Ready = tuple[str, Tensor, Tensor]  # a domain's name, normalized images, classes
Step = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """The size of the measurement."""

    batch: int
    rounds: int  # counted
    warm: int  # steps in a round that are not counted
    count: int  # steps in a round that are counted
    domains: tuple[int, ...]  # numbers of domains, ascending
    saves: int

    def train(self, steps: int, **more: Any) -> Train:
        """Return the default settings with SGD, the optimizer of all three loops."""
        given = {"steps": steps, "batch": self.batch, "optimizer": "sgd", "lr": RATE, **more}
        return Train.of(given)


# -- the three loops


class Plain:
    """A hand-written training loop: the plain trunk, a head per domain, one optimizer."""

    def __init__(self, domains: Sequence[ot.Domain]) -> None:
        trunk = nets.build(ARCH)
        of = {d.name: nn.Linear(trunk.num_features, len(d.tasks[0].classes)) for d in domains}
        # the faster layout, as in the joint loop
        self.trunk, self.heads = trunk.to(memory_format=torch.channels_last), nn.ModuleDict(of)
        parameters = [*self.trunk.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.SGD(
            parameters, lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
        )

    def step(self, batches: Iterable[Ready]) -> None:
        """Compute gradients of a batch of every domain, then do one optimizer step."""
        for name, images, target in batches:
            loss = F.cross_entropy(self.heads[name](self.trunk(images)), target)
            torch.autograd.backward(loss / len(self.heads))
        self.optimizer.step()
        self.optimizer.zero_grad()


def in_memory(domains: Sequence[ot.Domain], batch: int, steps: int) -> list[list[Ready]]:
    """Return the batches of the first steps as tensors."""
    sampler, of = ot.Loader(domains, batch, seed=SEED).sampler, {d.name: d for d in domains}
    batches: list[list[Ready]] = []
    for _ in range(steps):
        drawn = [(draw.domain, of[draw.domain].train.batch(draw.places)) for draw in sampler.next()]
        batches.append([(name, images, t["classify"]) for name, (images, t) in drawn])
    return batches


def write_folder(domain: ot.Domain, root: Path) -> Path:
    """Write the training images of a domain as PNG files, in a folder for each class."""
    images, targets = domain.train.stored(np.arange(len(domain.train)))
    for i, (pixels, label) in enumerate(zip(images, targets["classify"], strict=True)):
        folder = root / f"class{label:04}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i:06}.png")
    return root


def loader_of(domain: ot.Domain, root: Path, batch: int) -> Generator[Any]:
    """Yield batches of torchvision's loader, as in its tutorials, without end."""
    steps: list[Any] = [transforms.RandomCrop(SIZE, padding=PAD)]
    steps += [transforms.RandomHorizontalFlip()] if domain.augmentation.flip else []
    steps += [transforms.ToTensor(), transforms.Normalize(domain.pixels.mean, domain.pixels.std)]
    folder = datasets.ImageFolder(str(write_folder(domain, root)), transforms.Compose(steps))
    loader: DataLoader[Any] = DataLoader(
        folder, batch, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True
    )
    while True:
        yield from loader


class Turns:
    """A logger that times its run, and runs and times the other loops between its steps."""

    def __init__(self, screen: Logger, others: Mapping[str, Step], setting: Setting) -> None:
        self.screen, self.others, self.setting = screen, others, setting
        self.seconds: dict[str, list[float]] = {name: [] for name in ("joint", *others)}
        self.at = 0  # steps in this round
        self.began = 0.0

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Forward the start of the run to the screen logger."""
        self.screen.begin(plan)

    def log_step(self, record: Mapping[str, Any]) -> None:
        """Count a step; after the last one of a round, time the other loops."""
        self.screen.log_step(record)
        self.at += 1
        if self.at == self.setting.warm:
            self.began = time.perf_counter()
        if self.at < self.setting.warm + self.setting.count:
            return
        self.seconds["joint"].append(time.perf_counter() - self.began)
        torch.use_deterministic_algorithms(False)  # the other loops are not deterministic
        for name, step in self.others.items():
            for _ in range(self.setting.warm):
                step()
            self.seconds[name].append(seconds(step, self.setting.count))
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.at = 0

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        """Forward an evaluation to the screen logger."""
        self.screen.log_evaluation(record)

    def end(self) -> None:
        """Forward the end of the run to the screen logger."""
        self.screen.end()


def seconds(step: Step, count: int) -> float:
    """Return the seconds of `count` steps."""
    began = time.perf_counter()
    for _ in range(count):
        step()
    return time.perf_counter() - began


def joint(figures: Figures, setting: Setting, scratch: Path) -> None:
    """Time the three loops, and the checkpoints of the joint one."""
    cache = scratch / "cache"
    domains = [ot.Domain(name, f"pocket:{name}", size=SIZE, cache=cache) for name in NAMES]
    ready = itertools.cycle(in_memory(domains, setting.batch, 16))
    loaders = {d.name: loader_of(d, scratch / "png" / d.name, setting.batch) for d in domains}
    plain, usual = Plain(domains), Plain(domains)

    def usual_step() -> None:
        usual.step((name, *next(batches)) for name, batches in loaders.items())

    others = {"plain": lambda: plain.step(next(ready)), "usual": usual_step}
    steps = (setting.rounds + 1) * (setting.warm + setting.count)
    model = ot.Universal(ot.Trunk(ARCH), domains)
    train = setting.train(steps, log_every=1, eval_every=steps)
    with (
        RunFolder.open(scratch / "run", 'name = "bench"\n') as run,
        redirect_stderr(io.StringIO()),  # discard the output of the screen logger
    ):
        turns = Turns(make_logger((), run.path), others, setting)
        fit(model, domains, train, run, turns, device=CPU, seed=SEED)
    for loader in loaders.values():
        loader.close()  # ends its worker processes
    took = {name: each[1:] for name, each in turns.seconds.items()}
    with closing(TimedLearner(domains, "round-robin", setting)) as timed:
        timed.step()
        per_step = median(took["joint"]) / setting.count
        spent = checkpoint(figures, timed.learner, per_step, setting, scratch / "saved-5")
    images = len(domains) * setting.batch * setting.count
    took["joint"] = [s + spent * setting.count / train.checkpoint_every for s in took["joint"]]
    for name, each in took.items():
        rate = images / median(each)
        figures.add(f"{name}_images_per_s", rate, f"{rate:,.0f}")
    for name, aim in (("plain", "≥ 0.95"), ("usual", "")):
        pairs = zip(took[name], took["joint"], strict=True)
        ratio = median([theirs / ours for theirs, ours in pairs])
        figures.add(f"joint_over_{name}_ratio", ratio, f"{ratio:.3f}×", aim)


# -- the cost of more domains


class TimedLearner:
    """A learner whose steps are timed."""

    def __init__(self, domains: Sequence[ot.Domain], sampling: str, setting: Setting) -> None:
        model = ot.Universal(ot.Trunk(ARCH), domains)
        self.learner = Learner(model, domains, setting.train(10_000, sampling=sampling), CPU, SEED)
        self.learner.model.train()
        self.passes = self.learner.passes()
        self.batches = len(domains) if sampling == "round-robin" else 1  # per step

    def step(self) -> None:
        """Do one step, as in `fit`."""
        self.learner.step(next(self.passes))
        self.learner.clock.tick()

    def close(self) -> None:
        """Stop preparing batches."""
        self.passes.close()


def many(figures: Figures, setting: Setting, scratch: Path) -> None:
    """Time the same number of images with few and many domains, and the largest checkpoint."""
    fewest, most = setting.domains[0], setting.domains[-1]
    domains = [
        ot.Domain(f"d{i}", "pocket:fashion", size=SIZE, cache=scratch / "cache")
        for i in range(most)
    ]
    for sampling in ("round-robin", "temperature"):
        learners = {n: TimedLearner(domains[:n], sampling, setting) for n in setting.domains}
        took: dict[int, list[float]] = {n: [] for n in learners}
        for _ in range(setting.rounds + 1):
            for n, timed in learners.items():
                took[n].append(seconds(timed.step, most // timed.batches))
        took = {n: each[1:] for n, each in took.items()}
        kind = sampling.replace("-", "_")
        cost = median(took[fewest]) / (most * setting.batch)
        figures.add(f"{kind}_{fewest}_ms_per_image", cost * 1e3, f"{cost * 1e3:.3f} ms")
        for n in setting.domains[1:]:
            ratio = median([a / b for a, b in zip(took[n], took[fewest], strict=True)])
            figures.add(f"{kind}_{n}_over_{fewest}_domains_ratio", ratio, f"{ratio:.3f}×", "≤ 1.10")
        if sampling == "temperature":  # all domains are saved, and steps are shortest
            per_step = median(took[most]) / most
            place = scratch / f"saved-{most}"
            checkpoint(figures, learners[most].learner, per_step, setting, place)
        for timed in learners.values():
            timed.close()


def checkpoint(
    figures: Figures, learner: Learner, per_step: float, setting: Setting, folder: Path
) -> float:
    """Return the seconds of a checkpoint: collect, write and sync it, and remove an old one."""
    took = []
    with RunFolder.open(folder, 'name = "bench"\n') as run:
        for _ in range(3 + setting.saves):  # the first ones have no old one to remove
            learner.clock.tick()
            took.append(seconds(lambda: save(learner, run, ""), 1))
    one = median(took[3:])
    apart = min(learner.train.checkpoint_every * per_step, CHECKPOINT)
    name, share = f"checkpoint_{len(learner.domains)}_domains", one / apart
    figures.add(f"{name}_ms", one * 1e3, f"{one * 1e3:.0f} ms")
    figures.add(f"{name}_ratio", share, f"{100 * share:.2f} % of {apart:.0f} s", "< 1 %")
    return one


def main() -> None:
    """Measure, print the table, and write the figures."""
    args = options((__doc__ or "").split("\n")[0])
    torch.manual_seed(SEED)
    setting = Setting(batch=64, rounds=5, warm=3, count=12, domains=(2, 10, 50), saves=9)
    if args.quick:
        setting = replace(setting, batch=2, rounds=1, warm=1, count=2, domains=(2, 4), saves=2)
    figures = Figures(SEED)
    with tempfile.TemporaryDirectory() as scratch:
        joint(figures, setting, Path(scratch))
        with deterministic(True, CPU):
            many(figures, setting, Path(scratch))
    threads = torch.get_num_threads()
    figures.values |= {"batch": setting.batch, "rounds": setting.rounds, "threads": threads}
    title = f"training {len(NAMES)} domains, {ARCH} at {SIZE}×{SIZE}, {threads} threads"
    figures.finish(f"{title}, batch {setting.batch}", args.json)


if __name__ == "__main__":
    main()
