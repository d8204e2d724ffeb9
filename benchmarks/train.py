"""One loop for many domains, beside the loop that one writes by hand and the usual way, in one run.

Five embedded domains, resnet20 at 32×32, a batch of 64 from each in a step, the same optimizer:

- joint: `learn.fit`, the real loop: a trunk with banks, cached images that are augmented, a run
  folder with a line a step, checkpoints at the default interval, every check;
- plain: a hand-written loop over the bare trunk with a head for each domain, on normalized tensors
  that lie in memory, the same images in the same batches, neither augmented nor checked;
- usual: that loop on ImageFolder and a DataLoader with two workers for each domain, which read the
  same images from PNG files through torchvision's transforms (crop, flip, normalise).

They take turns, A B C A B C …, in one process: a logger of the run lets the others go while the run
stands still, so that whatever else the machine does meets all three. The first turn, the first
steps of every turn and all validation do not count; the joint loop's share of checkpoints does.

Then what an image costs with 2, 10 and 50 domains (the same images under other names), and what a
checkpoint costs.
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
    """How much to measure."""

    batch: int
    rounds: int  # that count
    warm: int  # steps of a turn that do not count
    count: int  # steps of a turn that do
    domains: tuple[int, ...]  # how many, the fewest first
    saves: int

    def train(self, steps: int, **more: Any) -> Train:
        """The joint loop's settings: the defaults, but for the optimizer that all share."""
        given = {"steps": steps, "batch": self.batch, "optimizer": "sgd", "lr": RATE, **more}
        return Train.of(given)


# -- the three loops


class Plain:
    """What one writes by hand: the bare trunk, a head for each domain, one optimizer."""

    def __init__(self, domains: Sequence[ot.Domain]) -> None:
        trunk = nets.build(ARCH)
        of = {d.name: nn.Linear(trunk.num_features, len(d.tasks[0].classes)) for d in domains}
        # channels last is the faster layout for it, too
        self.trunk, self.heads = trunk.to(memory_format=torch.channels_last), nn.ModuleDict(of)
        learned = [*self.trunk.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.SGD(
            learned, lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
        )

    def step(self, batches: Iterable[Ready]) -> None:
        """A batch of every domain, then one step of descent."""
        for name, images, target in batches:
            loss = F.cross_entropy(self.heads[name](self.trunk(images)), target)
            torch.autograd.backward(loss / len(self.heads))
        self.optimizer.step()
        self.optimizer.zero_grad()


def in_memory(domains: Sequence[ot.Domain], batch: int, steps: int) -> list[list[Ready]]:
    """The batches of the first steps, as tensors."""
    sampler, of = ot.Loader(domains, batch, seed=SEED).sampler, {d.name: d for d in domains}
    made: list[list[Ready]] = []
    for _ in range(steps):
        drawn = [(draw.domain, of[draw.domain].train.batch(draw.places)) for draw in sampler.next()]
        made.append([(name, images, t["classify"]) for name, (images, t) in drawn])
    return made


def write_folder(domain: ot.Domain, root: Path) -> Path:
    """A domain's training images as PNG files in a folder for each class."""
    images, targets = domain.train.stored(np.arange(len(domain.train)))
    for i, (pixels, label) in enumerate(zip(images, targets["classify"], strict=True)):
        folder = root / f"class{label:04}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i:06}.png")
    return root


def loader_of(domain: ot.Domain, root: Path, batch: int) -> Generator[Any]:
    """torchvision's way, as its tutorials write it; endless."""
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
    """A logger that times its run from inside, and others while the run stands still."""

    def __init__(self, screen: Logger, others: Mapping[str, Step], setting: Setting) -> None:
        self.screen, self.others, self.setting = screen, others, setting
        self.seconds: dict[str, list[float]] = {name: [] for name in ("joint", *others)}
        self.at = 0  # steps of this turn
        self.began = 0.0

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Nothing is timed yet."""
        self.screen.begin(plan)

    def log_step(self, record: Mapping[str, Any]) -> None:
        """A step is done, its line is written."""
        self.screen.log_step(record)
        self.at += 1
        if self.at == self.setting.warm:
            self.began = time.perf_counter()
        if self.at < self.setting.warm + self.setting.count:
            return
        self.seconds["joint"].append(time.perf_counter() - self.began)
        torch.use_deterministic_algorithms(False)  # the others promise nothing
        for name, step in self.others.items():
            for _ in range(self.setting.warm):
                step()
            self.seconds[name].append(seconds(step, self.setting.count))
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.at = 0

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        """After the last turn."""
        self.screen.log_evaluation(record)

    def end(self) -> None:
        """It is over."""
        self.screen.end()


def seconds(step: Step, count: int) -> float:
    """Of so many steps."""
    began = time.perf_counter()
    for _ in range(count):
        step()
    return time.perf_counter() - began


def joint(figures: Figures, setting: Setting, scratch: Path) -> None:
    """The three loops in turns, and the joint one's checkpoints."""
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
        redirect_stderr(io.StringIO()),  # the screen writes, and nobody need read it
    ):
        turns = Turns(make_logger((), run.path), others, setting)
        fit(model, domains, train, run, turns, device=CPU, seed=SEED)
    for loader in loaders.values():
        loader.close()  # and its workers end
    took = {name: each[1:] for name, each in turns.seconds.items()}
    with closing(Going(domains, "round-robin", setting)) as going:
        going.step()
        per_step = median(took["joint"]) / setting.count
        spent = checkpoint(figures, going.learner, per_step, setting, scratch / "saved-5")
    images = len(domains) * setting.batch * setting.count
    took["joint"] = [s + spent * setting.count / train.checkpoint_every for s in took["joint"]]
    for name, each in took.items():
        rate = images / median(each)
        figures.add(f"{name}_images_per_s", rate, f"{rate:,.0f}")
    for name, aim in (("plain", "≥ 0.95"), ("usual", "")):
        pairs = zip(took[name], took["joint"], strict=True)
        ratio = median([theirs / ours for theirs, ours in pairs])
        figures.add(f"joint_over_{name}_ratio", ratio, f"{ratio:.3f}×", aim)


# -- what more domains cost


class Going:
    """A learner in the middle of its training."""

    def __init__(self, domains: Sequence[ot.Domain], sampling: str, setting: Setting) -> None:
        model = ot.Universal(ot.Trunk(ARCH), domains)
        self.learner = Learner(model, domains, setting.train(10_000, sampling=sampling), CPU, SEED)
        self.learner.model.train()
        self.passes = self.learner.passes()
        self.batches = len(domains) if sampling == "round-robin" else 1  # in a step

    def step(self) -> None:
        """One step, as in `learn.fit`."""
        self.learner.step(next(self.passes))
        self.learner.clock.tick()

    def close(self) -> None:
        """No more steps are prepared."""
        self.passes.close()


def many(figures: Figures, setting: Setting, scratch: Path) -> None:
    """As many images with few domains as with many, in turns; then the most costly checkpoint."""
    fewest, most = setting.domains[0], setting.domains[-1]
    domains = [
        ot.Domain(f"d{i}", "pocket:fashion", size=SIZE, cache=scratch / "cache")
        for i in range(most)
    ]
    for sampling in ("round-robin", "temperature"):
        goings = {n: Going(domains[:n], sampling, setting) for n in setting.domains}
        took: dict[int, list[float]] = {n: [] for n in goings}
        for _ in range(setting.rounds + 1):
            for n, going in goings.items():
                took[n].append(seconds(going.step, most // going.batches))
        took = {n: each[1:] for n, each in took.items()}
        kind = sampling.replace("-", "_")
        cost = median(took[fewest]) / (most * setting.batch)
        figures.add(f"{kind}_{fewest}_ms_per_image", cost * 1e3, f"{cost * 1e3:.3f} ms")
        for n in setting.domains[1:]:
            ratio = median([a / b for a, b in zip(took[n], took[fewest], strict=True)])
            figures.add(f"{kind}_{n}_over_{fewest}_domains_ratio", ratio, f"{ratio:.3f}×", "≤ 1.10")
        if sampling == "temperature":  # all domains to write, and the shortest steps between
            per_step = median(took[most]) / most
            place = scratch / f"saved-{most}"
            checkpoint(figures, goings[most].learner, per_step, setting, place)
        for going in goings.values():
            going.close()


def checkpoint(
    figures: Figures, learner: Learner, per_step: float, setting: Setting, folder: Path
) -> float:
    """Seconds of one: everything collected, written, synced, an old one removed."""
    took = []
    with RunFolder.open(folder, 'name = "bench"\n') as run:
        for _ in range(3 + setting.saves):  # the first find no old one to remove
            learner.clock.tick()
            took.append(seconds(lambda: save(learner, run, ""), 1))
    one = median(took[3:])
    apart = min(learner.train.checkpoint_every * per_step, CHECKPOINT)
    name, share = f"checkpoint_{len(learner.domains)}_domains", one / apart
    figures.add(f"{name}_ms", one * 1e3, f"{one * 1e3:.0f} ms")
    figures.add(f"{name}_ratio", share, f"{100 * share:.2f} % of {apart:.0f} s", "< 1 %")
    return one


def main() -> None:
    """Measure, print, keep."""
    asked = options((__doc__ or "").split("\n")[0])
    torch.manual_seed(SEED)
    setting = Setting(batch=64, rounds=5, warm=3, count=12, domains=(2, 10, 50), saves=9)
    if asked.quick:
        setting = replace(setting, batch=2, rounds=1, warm=1, count=2, domains=(2, 4), saves=2)
    figures = Figures(SEED)
    with tempfile.TemporaryDirectory() as scratch:
        joint(figures, setting, Path(scratch))
        with deterministic(True, CPU):
            many(figures, setting, Path(scratch))
    threads = torch.get_num_threads()
    figures.values |= {"batch": setting.batch, "rounds": setting.rounds, "threads": threads}
    title = f"training {len(NAMES)} domains, {ARCH} at {SIZE}×{SIZE}, {threads} threads"
    figures.finish(f"{title}, batch {setting.batch}", asked.json)


if __name__ == "__main__":
    main()
