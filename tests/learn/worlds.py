"""Small worlds to learn in: a few images of noise, a small network, a handful of steps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from fakes import CLASSIFY, Fake, labelled, picture

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.learn.fit import Learner
from onetrunk.model.trunk import Trunk
from onetrunk.model.universal import Universal
from onetrunk.recipe import Train

CPU = torch.device("cpu")
SPLITS = ("train", "train", "train", "val", "test")


def noise(count: int = 40, classes: Sequence[str] = ("a", "b"), first: int = 0) -> Fake:
    """Noise of 8×8 pixels; `first` tells the images of one source from those of another."""
    images = {str(i): picture(first + i, 8, 8) for i in range(count)}
    return Fake(CLASSIFY, labelled(count, classes, SPLITS), images)


def worlds(*names: str, **more: Any) -> list[Domain]:
    """Domains of different images; of different numbers of them, too."""
    return [
        Domain(name, noise(40 + 20 * i, "abc"[: 2 + i % 2], 1000 * i), size=8, **more)
        for i, name in enumerate(names)
    ]


def network(domains: Sequence[Domain], seed: int = 0, **trunk: Any) -> Universal:
    """The smallest trunk; always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Universal(Trunk(trunk.pop("arch", "resnet20"), **trunk), domains)


def settings(**given: Any) -> Train:
    """A few steps of sgd unless something else is said."""
    usual = {"steps": 8, "batch": 4, "optimizer": "sgd", "lr": 0.05, "warmup": 0.0}
    if "epochs" in given or "hours" in given:
        del usual["steps"]
    return Train.of({**usual, **given})


def learner(
    domains: Sequence[Domain], model: Universal | None = None, seed: int = 0, **given: Any
) -> Learner:
    """Ready to step; `learner.step(next(learner.passes()))`."""
    model = network(domains) if model is None else model
    made = Learner(model, domains, settings(**given), CPU, seed)
    made.model.train()
    return made


def steps(learner: Learner, count: int) -> list[list[list[Batch]]]:
    """What the next steps would learn from."""
    return list(itertools.islice(learner.passes(), count))


def weights(model: Universal) -> dict[str, torch.Tensor]:
    """A copy of everything that a model is."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """To the bit, names included."""
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)
