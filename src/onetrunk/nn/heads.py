"""Heads: a trunk's features to one prediction for each (domain, task).

| kind | output | from |
|---|---|---|
| classify, multilabel | logits (B, classes) | pooled features, linear |
| regress | numbers (B, outputs) | pooled features, linear, scaled |
| embed | unit vectors (B, 128) | pooled features, linear, L2-normalised |
| segment | logits (B, classes, H, W) | the domain's decoder, 1×1 |
| depth | metres (B, 1, H, W) | the domain's decoder, 1×1 |
| normals | unit vectors (B, 3, H, W) | the domain's decoder, 1×1, L2-normalised |

H×W is the input's size, odd sizes too. The decoder (decoder.py) belongs to the domain: its dense
tasks share one. On a trunk that decodes by itself a dense head is, as in the papers that run such
trunks, a 3×3 and the 1×1 on the trunk's last map.

A head of the user's own, "package.module:thing", is called as `thing(task, inside)` and returns a
module: of a dense task one from (B, inside, h, w) to (B, width, h, w), which is then resized, of
any other kind one from (B, inside) to (B, width).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.decoder import Decoder, Taken

EMBED = 128  # numbers of an embedding
MakeHead = Callable[[Task, int], nn.Module]


class Pooled(nn.Linear):
    """Classes' logits, labels' logits or numbers: one linear layer on pooled features."""

    def __init__(self, task: Task, inside: int) -> None:
        super().__init__(inside, task.width)


class Numbers(Pooled):
    """Numbers in the labels' own unit: ŷ = μ + s·(W f + b), μ and s of the training labels.

    So W and b are of the size that every rate and decay is made for, whatever the unit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, task: Task, inside: int) -> None:
        super().__init__(task, inside)
        self.register_buffer("mean", torch.zeros(task.width))
        self.register_buffer("std", torch.ones(task.width))

    def forward(self, features_BC: Tensor) -> Tensor:
        """(B, C) to (B, outputs)."""
        return super().forward(features_BC) * self.std + self.mean


class Embed(nn.Module):
    """A point on the unit sphere: e = W f / ‖W f‖, for retrieval by its inner products."""

    def __init__(self, task: Task, inside: int, width: int = EMBED) -> None:
        super().__init__()
        self.linear = nn.Linear(inside, width, bias=False)

    def forward(self, features_BC: Tensor) -> Tensor:
        """(B, C) to (B, width), each row of length 1."""
        return F.normalize(self.linear(features_BC), dim=1)


class Dense(nn.Conv2d):
    """One prediction a pixel of the decoder's map: a 1×1 convolution."""

    def __init__(self, task: Task, inside: int) -> None:
        super().__init__(inside, task.width, 1)


class Refined(nn.Module):
    """One prediction a pixel of a trunk's own decoded map: a 3×3 of as many channels, then a 1×1.

    Nothing stands between the two (Liu, Johns & Davison 2019; Li, Liu & Bilen 2022).
    """

    def __init__(self, task: Task, inside: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, inside, 3, padding=1)
        self.last = nn.Conv2d(inside, task.width, 1)
        nn.init.xavier_normal_(self.conv.weight)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """(B, inside, H, W) to (B, width, H, W)."""
        out: Tensor = self.last(self.conv(map_BCHW))
        return out


_MAKE: Mapping[str, MakeHead] = {
    "classify": Pooled,
    "multilabel": Pooled,
    "regress": Numbers,
    "embed": Embed,
    "segment": Dense,
    "depth": Dense,
    "normals": Dense,
}


def make_head(
    task: Task, inside: int, head: str | MakeHead | None = None, decoded: bool = False
) -> nn.Module:
    """The head of one task on `inside` channels; `head` is the user's own."""
    if task.width < 1 and task.kind != "embed":
        raise BadInput(
            f"task {task.name}: a {task.kind} head has at least one output",
            got=f"{len(task.classes)} classes, {task.outputs} outputs",
            try_="name its classes, or read them from the source",
        )
    if head is None:
        head = Refined if task.dense and decoded else _MAKE[task.kind]
    elif isinstance(head, str):
        head = _own(head)
    return head(task, inside)


def finish(task: Task, out: Tensor, size: tuple[int, int]) -> Tensor:
    """As its kind promises: a dense map at the input's size, normals of length 1."""
    if task.dense:
        out = F.interpolate(out, size=size, mode="bilinear", align_corners=False)
    if task.kind == "normals":
        out = F.normalize(out, dim=1)
    return out


class Heads(nn.Module):
    """All heads of one domain, with the decoder that its dense tasks share."""

    def __init__(
        self,
        tasks: Sequence[Task],
        num_features: int,
        pyramid: Sequence[tuple[int, int]],
        own: Mapping[str, str | MakeHead] | None = None,
        decoded: bool = False,
    ) -> None:
        """`pyramid`: channels and reduction of each map, finest first; `own`: heads by task;
        `decoded`: the last map is a decoder's already."""
        super().__init__()
        own = own or {}
        for name in own:
            if name not in [task.name for task in tasks]:
                raise BadInput(
                    "a head for an unknown task", got=name, available=[t.name for t in tasks]
                )
        self.tasks = tuple(tasks)
        self.decoder: Decoder | Taken | None = None
        if any(task.dense for task in tasks):
            self.decoder = Taken(pyramid) if decoded else Decoder(pyramid)
        self.of = nn.ModuleDict()
        for task in tasks:
            inside = self.decoder.width if task.dense and self.decoder else num_features
            self.of[key_of(task.name)] = make_head(task, inside, own.get(task.name), decoded)

    @property
    def needs_pyramid(self) -> bool:
        """Whether a dense task asks for the trunk's maps."""
        return self.decoder is not None

    @property
    def needs_pooled(self) -> bool:
        """Whether a task asks for pooled features."""
        return any(not task.dense for task in self.tasks)

    def head(self, task: str) -> nn.Module:
        """The head of this task."""
        if key_of(task) not in self.of:
            raise BadInput(
                "no head for this task", got=task, available=[t.name for t in self.tasks]
            )
        return self.of[key_of(task)]

    def forward(
        self,
        pooled_BC: Tensor | None,
        pyramid: Sequence[Tensor] | Mapping[int, Tensor],
        size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Predictions by task name; `pooled_BC` may be None, `pyramid` empty, if none asks."""
        return self.prediction(pooled_BC, self.decoded(pyramid), size)

    def decoded(self, pyramid: Sequence[Tensor] | Mapping[int, Tensor]) -> Tensor | None:
        """The map that dense tasks read, where there is one."""
        return self.decoder(pyramid) if self.decoder is not None else None

    def prediction(
        self, pooled_BC: Tensor | None, decoded_BCHW: Tensor | None, size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Predictions by task name, of what the heads read."""
        return {
            task.name: finish(
                task, self.of[key_of(task.name)](decoded_BCHW if task.dense else pooled_BC), size
            )
            for task in self.tasks
        }


def key_of(task: str) -> str:
    # Of an nn.ModuleDict a method's name ("keys", "type") cannot be a key; a task may be called so.
    return f"task_{task}"


def _own(name: str) -> MakeHead:
    module, _, thing = name.partition(":")
    try:
        made: MakeHead = getattr(importlib.import_module(module), thing)
    except ImportError as error:
        raise BadInput(f"head {name}: cannot import {module}", got=str(error)) from None
    except (AttributeError, ValueError):
        raise BadInput(
            "expected a head as package.module:thing", got=name, available=_MAKE.keys()
        ) from None
    return made
