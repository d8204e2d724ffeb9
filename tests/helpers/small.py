"""Domains of colored noise, and small universal networks for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onetrunk.data.domain import Domain
from onetrunk.data.sources import Item
from onetrunk.data.task import Task
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal

DENSE = (Task("parts", "segment", ("sky", "sea")), Task("depth", "depth"), Task("up", "normals"))


class Made:
    """A source of colored noise, with `count` images per split and labels by the image's number."""

    def __init__(self, tasks: tuple[Task, ...], count: int = 24, size: int = 16, seed: int = 0):
        self.tasks = tasks
        self.count = count
        self.size = (size, size)
        self.seed = seed

    def items(self) -> Iterator[Item]:
        for number in range(3 * self.count):
            split = ("train", "val", "test")[number // self.count]
            labels: dict[str, Any] = {}
            for task in self.tasks:
                if task.kind in ("classify", "embed"):
                    labels[task.name] = task.classes[number % len(task.classes)]
                elif task.kind == "multilabel":
                    here = [number % len(task.classes), number // 2 % len(task.classes)]
                    labels[task.name] = tuple(sorted({task.classes[i] for i in here}))
                elif task.kind == "regress":
                    labels[task.name] = (float(number % 7),) * task.outputs
            yield Item(f"{split}/{number:03}.png", str(number), str(number), split, None, labels)

    def image(self, where: str) -> NDArray[np.uint8]:
        chance = np.random.default_rng([self.seed, int(where)])
        tint = chance.integers(0, 200, 3)
        noise = chance.integers(0, 56, (*self.size, 3))
        return (tint + noise).astype(np.uint8)

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        kind = next(t.kind for t in self.tasks if t.name == task)
        ramp = np.linspace(1, 4, self.size[1], dtype=np.float32)
        depth = np.broadcast_to(ramp, self.size)
        if kind == "segment":
            return (depth > 2).astype(np.uint8)
        if kind == "depth":
            return depth.copy()
        return np.broadcast_to(np.array([0, 0, 1], np.float32), (*self.size, 3)).copy()


def domain(name: str, *tasks: Task, count: int = 24, size: int = 16, seed: int = 0) -> Domain:
    """Return a domain of noise; without given tasks, it classifies into three classes."""
    given = tasks or (Task("classify", "classify", ("a", "b", "c")),)
    return Domain(name, Made(given, count, size, seed), given, size=size, cache=False)


def network(domains: list[Domain], seed: int = 0, **keys: Any) -> Universal:
    """Return an untrained network with noise added to each domain's parameters and statistics."""
    torch.manual_seed(seed)
    model = Universal(Trunk("resnet20", **keys), domains)
    with torch.no_grad():
        for name in model.domains:
            for key, value in model.own(name).items():
                if value.is_floating_point() and "running_var" not in key:
                    value.add_(0.2 * torch.randn_like(value))
    return model.eval()
