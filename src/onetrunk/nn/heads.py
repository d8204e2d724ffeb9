"""Heads: from a trunk's features to one prediction for each (domain, task).

| kind | output | from |
|---|---|---|
| classify, multilabel | logits (B, classes) | pooled features, linear |
| regress | numbers (B, outputs) | pooled features, linear, scaled |
| embed | unit vectors (B, 128) | pooled features, linear, L2-normalized |
| segment | logits (B, classes, H, W) | the domain's decoder, 1×1 |
| depth | metres (B, 1, H, W) | the domain's decoder, 1×1 |
| normals | unit vectors (B, 3, H, W) | the domain's decoder, 1×1, L2-normalized |

H×W is the size of the input, odd sizes included. The decoder (decoder.py) belongs to the domain:
its dense tasks share one. On a trunk that contains a decoder a dense head is, as in the papers with
such trunks, a 3×3 and the 1×1 on the trunk's last map.

A user's head, "package.module:thing", is called as `thing(task, inside)`, with its own arguments if
it has some, and returns a module: for a dense task from (B, inside, h, w) to (B, width, h, w),
which is then resized; for any other kind from (B, inside) to (B, width).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onetrunk.data.task import Task
from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.nn.decoder import Decoder, LastMap
from onetrunk.nn.modes import eval_mode
from onetrunk.objects import Named

EMBED = 128  # width of an embedding
TRIED = (16, 16)  # pixels of the map that a user's dense head is tried with
MakeHead = Callable[[Task, int], nn.Module]
UserHead = str | Named | Mapping[str, object] | MakeHead  # by name, or the class itself


class Pooled(nn.Linear):
    """Logits or numbers: one linear layer on pooled features."""

    def __init__(self, task: Task, inside: int) -> None:
        super().__init__(inside, task.width)


class Numbers(Pooled):
    """Numbers in the unit of the labels: ŷ = μ + s·(W f + b), μ and s of the training labels.

    The scale of W and b, and with it the right learning rate, then does not depend on the unit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, task: Task, inside: int) -> None:
        super().__init__(task, inside)
        self.register_buffer("mean", torch.zeros(task.width))
        self.register_buffer("std", torch.ones(task.width))

    def forward(self, features_BC: Tensor) -> Tensor:
        """Map (B, C) to (B, outputs)."""
        return super().forward(features_BC) * self.std + self.mean


class Embed(nn.Module):
    """Unit vectors e = W f / ‖W f‖, for retrieval by inner products."""

    def __init__(self, task: Task, inside: int, width: int = EMBED) -> None:
        super().__init__()
        self.linear = nn.Linear(inside, width, bias=False)

    def forward(self, features_BC: Tensor) -> Tensor:
        """Map (B, C) to (B, width), each row of length 1."""
        return F.normalize(self.linear(features_BC), dim=1)


class Dense(nn.Conv2d):
    """One prediction per pixel of the decoder's map: a 1×1 convolution."""

    def __init__(self, task: Task, inside: int) -> None:
        super().__init__(inside, task.width, 1)


class Refined(nn.Module):
    """One prediction per pixel of a trunk's own decoded map: a 3×3 of the same width, then a 1×1.

    There is no activation between the two (Liu, Johns & Davison 2019; Li, Liu & Bilen 2022).
    """

    def __init__(self, task: Task, inside: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, inside, 3, padding=1)
        self.last = nn.Conv2d(inside, task.width, 1)
        nn.init.xavier_normal_(self.conv.weight)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """Map (B, inside, H, W) to (B, width, H, W)."""
        out: Tensor = self.last(self.conv(map_BCHW))
        return out


_HEADS: Mapping[str, MakeHead] = {
    "classify": Pooled,
    "multilabel": Pooled,
    "regress": Numbers,
    "embed": Embed,
    "segment": Dense,
    "depth": Dense,
    "normals": Dense,
}


def make_head(
    task: Task, inside: int, head: UserHead | None = None, decoded: bool = False
) -> nn.Module:
    """Return a new head for one task.

    Args:
        inside: Channels of the features.
        head: A user's head.
        decoded: Whether the trunk contains a decoder.
    """
    if task.width < 1 and task.kind != "embed":
        raise BadInput(
            f"task {task.name}: a {task.kind} head needs at least one output",
            got=f"{len(task.classes)} classes, {task.outputs} outputs",
            try_="name its classes, or read them from the source",
        )
    if head is None:
        return (Refined if task.dense and decoded else _HEADS[task.kind])(task, inside)
    if isinstance(head, str | Named | Mapping):
        head = Named.of(head).load(f"head of {task.name}:")
    if not callable(head):
        raise BadInput(
            f"task {task.name}: expected a head as package.module:thing, or a class",
            got=type(head).__name__,
        )
    try:
        made = head(task, inside)
    except OnetrunkError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise _failed(task, f"{_name_of(head)}(task, inside)", error) from error
    if not isinstance(made, nn.Module):
        raise BadInput(
            f"task {task.name}: expected a head that is a module", got=type(made).__name__
        )
    _check_output(task, inside, made)
    return made


def _check_output(task: Task, inside: int, head: nn.Module) -> None:
    """Run a user's head once, and raise BadInput if its output does not have the task's width."""
    like = next(head.parameters(), torch.empty(0))
    shape = (2, inside, *TRIED) if task.dense else (2, inside)
    x = torch.zeros(shape, device=like.device)
    try:
        with eval_mode(head), torch.no_grad(), torch.random.fork_rng(devices=[]):
            out = head(x)
    except OnetrunkError:
        raise
    except Exception as error:  # the user's code may raise anything
        shown = _shape(shape[1:])
        raise _failed(task, f"{type(head).__name__} on features {shown}", error) from error
    width = () if task.kind == "embed" else (task.width,)
    sides = 2 if task.dense else 0
    got = tuple(out.shape) if isinstance(out, Tensor) else None
    if got is None or len(got) != 2 + sides or got[0] != 2 or got[1 : 1 + len(width)] != width:
        expected = _shape((*(width or ("D",)), *("h", "w")[:sides]))
        raise BadInput(
            f"head of {task.name}: expected {expected}",
            got=type(out).__name__ if got is None else _shape(got[1:]),
            try_=f"the width of its last layer is task.width, here {task.width}" if width else None,
        )


def _failed(task: Task, what: str, error: Exception) -> BadInput:
    """Return the error for a user's head that raised one."""
    line = next(iter(str(error).splitlines()), "")
    return BadInput(
        f"head of {task.name}: {what} failed",
        got=f"{type(error).__name__}: {line}"[:200],
        try_="a class or function that takes the task and the number of channels, and returns a "
        "module from (B, inside) to (B, task.width)",
    )


def _shape(shape: Sequence[object]) -> str:
    return f"({', '.join(map(str, ('B', *shape)))})"


def _name_of(head: MakeHead) -> str:
    function = head.func if isinstance(head, functools.partial) else head
    return getattr(function, "__name__", type(function).__name__)


def named_heads(heads: Mapping[str, UserHead]) -> tuple[dict[str, Named], str]:
    """Return the heads that another process can import, and why it cannot import the others."""
    named, reason = {}, ""
    for task, head in heads.items():
        try:
            named[task] = Named.of(head)
        except BadInput as error:
            if not callable(head):
                raise
            reason = str(error)
    return named, reason


def finish(task: Task, out: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize dense outputs to the size of the input, and normalize normals."""
    if task.dense:
        out = F.interpolate(out, size=size, mode="bilinear", align_corners=False)
    if task.kind == "normals":
        out = F.normalize(out, dim=1)
    return out


class Heads(nn.Module):
    """All heads of one domain, with the decoder that its dense tasks share.

    Args:
        num_features: Width of the pooled features.
        pyramid: Channels and reduction of each map, finest first.
        own: Users' heads, by task.
        decoded: Whether the last map is the output of a decoder.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        num_features: int,
        pyramid: Sequence[tuple[int, int]],
        own: Mapping[str, UserHead] | None = None,
        decoded: bool = False,
    ) -> None:
        super().__init__()
        own = own or {}
        names = [task.name for task in tasks]
        for name in own:
            if name not in names:
                raise BadInput("a head for an unknown task", got=name, available=names)
        self.tasks = tuple(tasks)
        self.decoder: Decoder | LastMap | None = None
        if any(task.dense for task in tasks):
            self.decoder = LastMap(pyramid) if decoded else Decoder(pyramid)
        self.of = nn.ModuleDict()
        for task in tasks:
            inside = self.decoder.width if task.dense and self.decoder else num_features
            self.of[key_of(task.name)] = make_head(task, inside, own.get(task.name), decoded)

    @property
    def needs_pooled(self) -> bool:
        """Whether a task reads pooled features."""
        return any(not task.dense for task in self.tasks)

    def head(self, task: str) -> nn.Module:
        """Return the head of a task."""
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
        """Return predictions by task; `pooled_BC` and `pyramid` may be empty if unused."""
        return self.prediction(pooled_BC, self.decoded(pyramid), size)

    def decoded(self, pyramid: Sequence[Tensor] | Mapping[int, Tensor]) -> Tensor | None:
        """Return the map for dense tasks; None without any."""
        return self.decoder(pyramid) if self.decoder is not None else None

    def prediction(
        self, pooled_BC: Tensor | None, decoded_BCHW: Tensor | None, size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Return predictions by task from pooled features and the decoded map."""
        return {
            task.name: finish(
                task, self.of[key_of(task.name)](decoded_BCHW if task.dense else pooled_BC), size
            )
            for task in self.tasks
        }


def key_of(task: str) -> str:
    """Return the key of a task in `Heads.of`: `nn.ModuleDict` does not allow "type" and others."""
    return f"task_{task}"
