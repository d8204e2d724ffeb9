"""Time the training steps of a new domain, by what the domain owns.

    python benchmarks/grow.py [--quick] [--json FILE] [--device cuda] [--dtype bfloat16]

A domain of 64-pixel images is added to a resnet26 with norms per domain:

- finetune: a separate network is fine-tuned from the weights of the trunk;
- parallel, series, lora, norm and low-rank parallel: the slots and the head of the domain are
  trained, as in `onetrunk add`.

These are steps of the training loop (`Learner.step`) on the same prepared batches: forward pass,
loss, backward pass and optimizer, without loading and evaluation. Steps of all variants alternate,
so that other load on the machine affects them equally; the first two rounds are not counted.

- none: only the head, solved on features that are computed once. The seconds are for all of it,
  with and without the computation of the features.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from table import Figures, median

import onetrunk as ot
from onetrunk.config import Train
from onetrunk.config.add_recipe import card_adapters
from onetrunk.nn.card import Card
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.device import DTYPES, deterministic
from onetrunk.train.features import FOLDER
from onetrunk.train.frozen_heads import fit_heads
from onetrunk.train.initialize import copy_weights
from onetrunk.train.learner import Learner
from onetrunk.train.loggers import make_logger
from onetrunk.train.new_domain.scratch_model import make_scratch_model, unfreeze_own
from onetrunk.train.new_domain.trials import AdapterKind, pack_bytes

ARCH, NEW, WHOLE = "resnet26", "new", "finetune"
RANK = 8  # of low-rank adapters, as in `onetrunk add --adapters auto`
KINDS = (
    AdapterKind("parallel"),
    AdapterKind("parallel", RANK),
    AdapterKind("series"),
    AdapterKind("lora"),
    AdapterKind("norm"),
)
AIMS = {"parallel": "≤ 0.80", "norm": "≤ 0.65"}


@dataclass(frozen=True)
class Setting:
    """The size of the measurement."""

    batch: int
    rounds: int  # counted
    count: int  # steps in a round
    size: int  # of the images in training steps
    head_size: int  # of the images for the head alone
    device: torch.device
    dtype: str
    seed: int

    @property
    def train(self) -> Train:
        """The default settings with this precision."""
        given = {"steps": 10_000, "batch": self.batch, "precision": self.dtype}
        return Train.of(given)


class TimedLearner:
    """A learner whose steps are timed."""

    def __init__(self, model: ot.Universal, domain: ot.Domain, setting: Setting) -> None:
        self.setting = setting
        self.learner = Learner(model, [domain], setting.train, setting.device, setting.seed)
        self.learner.model.train()
        with closing(self.learner.passes()) as passes:
            self.batches = list(itertools.islice(passes, setting.count))
        self.seconds: list[float] = []

    def turn(self) -> None:
        """Time a step on each batch."""
        began = time.perf_counter()
        for passes in self.batches:
            self.learner.step(passes)
            self.learner.clock.tick()
        if self.learner.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - began)


def make_learners(
    trunk: ot.Universal, domain: ot.Domain, setting: Setting
) -> dict[str, TimedLearner]:
    """Return learners of the full network and of each kind of adapters."""
    whole = ot.Universal(ot.Trunk(ARCH, sharing="none"), [domain])
    copy_weights(whole, trunk)
    learners = {WHOLE: TimedLearner(whole, domain, setting)}
    for kind in KINDS:
        model = make_scratch_model(
            trunk, Card.of(domain, card_adapters(kind.name), kind.rank), setting.seed
        )
        unfreeze_own(model, domain.name)
        learners[kind.label.replace("-", "_")] = TimedLearner(model, domain, setting)
    return learners


def learned(figures: Figures, trunk: ot.Universal, domain: ot.Domain, setting: Setting) -> None:
    """Add milliseconds per image of every kind, and the ratio to fine-tuning."""
    every = make_learners(trunk, domain, setting)
    with deterministic(True, setting.device):
        for _ in range(setting.rounds + 2):
            for timed in every.values():
                timed.turn()
    took = {name: timed.seconds[2:] for name, timed in every.items()}
    images = setting.batch * setting.count
    for name, each in took.items():
        cost = 1e3 * median(each) / images
        figures.add(f"{name}_ms_per_image", cost, f"{cost:.2f} ms")
    for name, each in took.items():
        if name != WHOLE:
            ratio = median([a / b for a, b in zip(each, took[WHOLE], strict=True)])
            aim = AIMS.get(name, "")
            figures.add(f"{name}_over_{WHOLE}_ratio", ratio, f"{ratio:.3f}×", aim)
            bytes_ = pack_bytes(every[name].learner.model.pack(domain.name))
            figures.add(f"{name}_pack_mb", bytes_ / 1e6, f"{bytes_ / 1e6:.2f} MB")


def head(figures: Figures, trunk: ot.Universal, setting: Setting, scratch: Path) -> None:
    """Time the head alone, with and without the computation of features."""
    domain = domain_of(setting.head_size, scratch)
    images = len(domain.train) + len(domain.val)
    domain.train.batch(np.arange(1))  # decode the images before timing
    took: list[float] = []
    with RunFolder.open(scratch / "run", 'name = "bench"\n') as run:
        for _ in range(2):
            model = make_scratch_model(trunk, Card.of(domain, "none"), setting.seed)
            began = time.perf_counter()
            fit_heads(
                model,
                [domain],
                setting.train,
                run,
                make_logger((), run.path),
                device=setting.device,
                seed=setting.seed,
            )
            took.append(time.perf_counter() - began)
            for solved in (run.path / FOLDER / NEW).glob("*.safetensors"):
                solved.unlink()  # solve the head again on the stored features
    figures.values["head_images"] = images
    note = f"{images:,} images of {setting.head_size}²"
    figures.add("none_seconds", took[0], f"{took[0]:.1f} s", note)
    figures.add("none_features_there_seconds", took[1], f"{took[1]:.2f} s", "seconds")


def domain_of(size: int, scratch: Path) -> ot.Domain:
    """Return the new domain."""
    return ot.Domain(NEW, "pocket:fashion", size=size, cache=scratch / "cache")


def trunk_of(setting: Setting, scratch: Path) -> ot.Universal:
    """Return a model with one domain and random weights, on which the time does not depend."""
    first = ot.Domain("first", "pocket:digits", size=setting.size, cache=scratch / "cache")
    return ot.Universal(ot.Trunk(ARCH), [first]).eval()


def machine(device: torch.device) -> Mapping[str, float]:
    """Return the number of threads and whether a GPU is used."""
    return {"threads": torch.get_num_threads(), "cuda": int(device.type == "cuda")}


def main() -> None:
    """Measure, print the table, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and fast, to test the program")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    device = torch.device(given.device)
    fast = device.type == "cuda"
    setting = Setting(
        batch=256 if fast else 32,
        rounds=15 if fast else 9,
        count=8 if fast else 1,
        size=64,
        head_size=64,
        device=device,
        dtype=given.dtype,
        seed=given.seed,
    )
    if given.quick:
        setting = replace(setting, batch=8, rounds=3, count=1, head_size=16)
    figures = Figures(given.seed)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        trunk = trunk_of(setting, scratch)
        learned(figures, trunk, domain_of(setting.size, scratch), setting)
        head(figures, trunk, setting, scratch)
    figures.values |= {"batch": setting.batch, "rounds": setting.rounds, **machine(device)}
    where = torch.cuda.get_device_name() if fast else "CPU"
    title = (
        f"one more domain, {ARCH} at {setting.size}², {where}, {torch.get_num_threads()} threads"
    )
    figures.finish(f"{title}, batch {setting.batch}, {given.dtype}", given.json)


if __name__ == "__main__":
    main()
