"""What an updated domain keeps: its slots, and the head rows of the classes that stay, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from onetrunk.data.index import natural
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn import shared_heads as together
from onetrunk.nn.heads import key_of
from onetrunk.nn.pack import Pack
from onetrunk.nn.universal import Universal

BY_CLASS = ("classify", "multilabel", "segment")  # one output a class


def renamed(pack: Pack, names: Mapping[str, str]) -> Pack:
    """The same pack with classes called otherwise: `names` from old to new, in every task.

    Where they stood in the order of their names they do so again: so a source names them.
    """
    known = {c for task in pack.card.tasks for c in task.classes}
    for old, new in names.items():
        if old not in known:
            raise BadInput(f"{pack.card.name} has no such class", got=old, available=sorted(known))
        if new in known and new not in names:
            raise BadInput(
                f"{pack.card.name} has a class of this name already",
                got=f"{old}={new}",
                available=sorted(known),
                try_="update with a SOURCE in which the two are one",
            )
    tasks = [task.with_classes([names.get(c, c) for c in task.classes]) for task in pack.card.tasks]
    made = replace(pack, card=replace(pack.card, tasks=tuple(tasks)))
    sort = [list(t.classes) == sorted(t.classes, key=natural) for t in pack.card.tasks]
    again = [
        task.with_classes(sorted(task.classes, key=natural)) if fine else task
        for task, fine in zip(tasks, sort, strict=True)
    ]
    return with_classes(made, again)


def with_classes(pack: Pack, tasks: Sequence[Task]) -> Pack:
    """The same pack for these tasks, whose classes are known to it: rows go or change places."""
    tensors = dict(pack.tensors)
    for old, new in zip(pack.card.tasks, tasks, strict=True):
        if old.kind not in BY_CLASS or old.classes == new.classes:
            continue
        at = torch.tensor([old.classes.index(c) for c in new.classes])
        for key in _rows_of(tensors, old):
            tensors[key] = tensors[key][at].contiguous()
    return replace(pack, card=replace(pack.card, tasks=tuple(tasks)), tensors=tensors)


def _rows_of(tensors: Mapping[str, Tensor], task: Task) -> list[str]:
    """A head's tensors, which have a row an output."""
    start = f"heads/of.{key_of(task.name)}."
    return [key for key in tensors if key.startswith(start)]


@torch.no_grad()
def carry(worker: Universal, old: Pack) -> None:
    """The worker's domain starts as the pack: all that fits, and surviving classes' rows."""
    name = old.card.name
    mine = worker.own(name)
    before = {task.name: task for task in old.card.tasks}
    by_class: dict[str, tuple[Task, Task]] = {}
    for task in worker.domains[name].tasks:
        was = before.get(task.name)
        if was is not None and was.kind == task.kind and task.kind in BY_CLASS:
            by_class |= dict.fromkeys(_rows_of(old.tensors, task), (was, task))
    for key, tensor in mine.items():
        got = old.tensors.get(key)
        if got is None:
            continue
        if key in by_class and got.shape[1:] == tensor.shape[1:]:
            was, task = by_class[key]
            for row, c in enumerate(task.classes):
                if c in was.classes:
                    tensor[row].copy_(got[was.classes.index(c)])
        elif key not in by_class and got.shape == tensor.shape:
            tensor.copy_(got)


def check_same_heads(worker: Universal, name: str) -> None:
    """Heads that domains share cannot get other classes under the others."""
    shared: list[nn.Module] = [
        head for head in worker.heads_of(name).of.values() if isinstance(head, together.Shared)
    ]
    if shared:
        raise BadInput(
            f"{name} shares its heads with other domains (sharing = 'full')",
            try_="onetrunk remove it, and add it again",
        )
