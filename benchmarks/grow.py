"""The price of one more domain: steps of everything that a new domain may own, in turns.

    python benchmarks/grow.py [--quick] [--json FILE] [--device cuda] [--dtype bfloat16]

A resnet26 with norms of each domain's own takes on a domain of 64-pixel images:

- finetune: a network for it alone starts from the trunk's weights, and all of it learns;
- parallel, series, lora, norm and low-rank parallel: the worker of `onetrunk add`, in which the
  domain's slots and head learn.

All are steps of the real loop (`Learner.step`) on the same batches, which are prepared beforehand:
the forward pass, the loss, the backward pass, the descent; neither loading nor evaluation. They
take turns, so that whatever else the machine does meets all of them; the first turns do not count.

- none: the head alone, solved on features that are computed once: seconds for all of it, from the
  images on, and once more where the features are there already.
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
RANK = 8  # of the low-rank form, as the ladder tries it
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
    """How much to measure."""

    batch: int
    rounds: int  # that count
    count: int  # steps of a turn
    size: int  # of the images that learn
    head_size: int  # of those whose features are kept
    device: torch.device
    dtype: str
    seed: int

    @property
    def train(self) -> Train:
        """The defaults, in this type."""
        given = {"steps": 10_000, "batch": self.batch, "precision": self.dtype}
        return Train.of(given)


class Going:
    """A learner in the middle of its training."""

    def __init__(self, model: ot.Universal, domain: ot.Domain, setting: Setting) -> None:
        self.setting = setting
        self.learner = Learner(model, [domain], setting.train, setting.device, setting.seed)
        self.learner.model.train()
        with closing(self.learner.passes()) as passes:
            self.batches = list(itertools.islice(passes, setting.count))
        self.seconds: list[float] = []

    def turn(self) -> None:
        """A step on each batch, timed."""
        began = time.perf_counter()
        for passes in self.batches:
            self.learner.step(passes)
            self.learner.clock.tick()
        if self.learner.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - began)


def goings(trunk: ot.Universal, domain: ot.Domain, setting: Setting) -> dict[str, Going]:
    """The whole network, then the scratch models of every kind."""
    whole = ot.Universal(ot.Trunk(ARCH, sharing="none"), [domain])
    copy_weights(whole, trunk)
    found = {WHOLE: Going(whole, domain, setting)}
    for kind in KINDS:
        worker = make_scratch_model(
            trunk, Card.of(domain, card_adapters(kind.name), kind.rank), setting.seed
        )
        unfreeze_own(worker, domain.name)
        found[kind.label.replace("-", "_")] = Going(worker, domain, setting)
    return found


def learned(figures: Figures, trunk: ot.Universal, domain: ot.Domain, setting: Setting) -> None:
    """Milliseconds an image of every kind, and the share of the whole network's."""
    every = goings(trunk, domain, setting)
    with deterministic(True, setting.device):
        for _ in range(setting.rounds + 2):
            for going in every.values():
                going.turn()
    took = {name: going.seconds[2:] for name, going in every.items()}
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
    """The head alone, from the images on and from features that are there."""
    domain = domain_of(setting.head_size, scratch)
    images = len(domain.train) + len(domain.val)
    domain.train.batch(np.arange(1))  # its images are prepared, as they were for the steps
    took: list[float] = []
    with RunFolder.open(scratch / "run", 'name = "bench"\n') as run:
        for _ in range(2):
            worker = make_scratch_model(trunk, Card.of(domain, "none"), setting.seed)
            began = time.perf_counter()
            fit_heads(
                worker,
                [domain],
                setting.train,
                run,
                make_logger((), run.path),
                device=setting.device,
                seed=setting.seed,
            )
            took.append(time.perf_counter() - began)
            for solved in (run.path / FOLDER / NEW).glob("*.safetensors"):
                solved.unlink()  # the head is solved again, on features that stay
    figures.values["head_images"] = images
    said = f"{images:,} images of {setting.head_size}²"
    figures.add("none_seconds", took[0], f"{took[0]:.1f} s", said)
    figures.add("none_features_there_seconds", took[1], f"{took[1]:.2f} s", "seconds")


def domain_of(size: int, scratch: Path) -> ot.Domain:
    """The domain that comes."""
    return ot.Domain(NEW, "pocket:fashion", size=size, cache=scratch / "cache")


def trunk_of(setting: Setting, scratch: Path) -> ot.Universal:
    """A model in use, with fresh weights: only time is measured here."""
    first = ot.Domain("first", "pocket:digits", size=setting.size, cache=scratch / "cache")
    return ot.Universal(ot.Trunk(ARCH), [first]).eval()


def machine(device: torch.device) -> Mapping[str, float]:
    """What a figure depends on beside the library."""
    return {"threads": torch.get_num_threads(), "cuda": int(device.type == "cuda")}


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and fast: does it run at all?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures here")
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
