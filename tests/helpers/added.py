"""For tests that add domains: a finished small run, and domains to add to it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal, TypedDict

import pytest
import torch
from torch import Tensor

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.nn.saving import load
from onetrunk.nn.universal import Universal
from onetrunk.runs.train import train
from tests.helpers.fakes import CLASSIFY, Fake, labelled, picture
from tests.helpers.worlds import network, noise, worlds


class TrainSettings(TypedDict):
    """Some of the training settings of `train`, `add` and `update`."""

    steps: int
    batch: int
    optimizer: Literal["adamw", "sgd"]
    lr: float
    warmup: float


FEW: TrainSettings = {"steps": 2, "batch": 4, "optimizer": "sgd", "lr": 0.05, "warmup": 0.0}


def finished(folder: Path, **trunk: Any) -> Path:
    """Train a run of two domains for two steps; return its folder."""
    domains = worlds("one", "two")
    train(network(domains, **trunk), domains, out=folder, train=Train(**FEW))
    return folder


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, trained once; never changed."""
    return finished(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    """A copy of the finished run for one test."""
    return Path(shutil.copytree(template, tmp_path / "run"))


def more(name: str = "new", classes: str = "abc", first: int = 9000, count: int = 216) -> Domain:
    """Return a domain that is not in the run, with enough images for a validation split."""
    return Domain(name, noise(count, classes, first), size=8)


def coloured(classes: str, each: int, first: int = 0) -> Fake:
    """Return a source whose classes differ in color, so that a few images are enough."""
    images, count = {}, each * len(classes)
    for i in range(count):
        image = picture(first + i, 8, 8) // 4
        image[..., i % len(classes) % 3] += 120 + 40 * (i % len(classes) // 3)
        images[str(i)] = image
    return Fake(CLASSIFY, labelled(count, classes, ("train", "train", "val", "test")), images)


def predictions(run: Path, *names: str) -> dict[str, dict[str, Tensor]]:
    """Return the predictions of a run's model for fixed noise, for these domains or all."""
    return predictions_of(load(run), *names)


def predictions_of(model: Universal, *names: str) -> dict[str, dict[str, Tensor]]:
    """Return the predictions of a model for fixed noise, for these domains or all."""
    found = {}
    with torch.no_grad():
        for name in names or model.domains:
            chance = torch.Generator().manual_seed(1)
            height, width = model.domains[name].pixels.size
            found[name] = model(torch.randn(3, 3, height, width, generator=chance), name)
    return found


def same(one: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> bool:
    """Whether two sets of predictions are equal to the bit."""
    return one.keys() == other.keys() and all(
        value.equal(other[name][task]) for name in one for task, value in one[name].items()
    )


def files(folder: Path) -> dict[str, bytes]:
    """Return the contents of every file of a folder except locks, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
