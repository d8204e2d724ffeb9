"""Reuse of the previous pack in an update: its slots, and its heads' rows by class name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from onetrunk.data.index import natural
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.adapters import NO_ADAPTERS
from onetrunk.nn.heads import key_of
from onetrunk.nn.pack import Pack
from onetrunk.nn.shared_heads import SharedHead
from onetrunk.nn.universal import Universal

ROWS = ("weight", "bias", "last.weight", "last.bias")  # of heads: `Refined` has a `last` layer
BY_CLASS = ("classify", "multilabel", "segment")  # kinds with one output for each class


def owned_adapters(pack: Pack) -> str:
    """Return the adapters of a pack: "norm" if it only has norms, "none" without any slots."""
    if pack.card.adapters != NO_ADAPTERS:
        return pack.card.adapters
    if pack.card.provenance.get("adapters") == NO_ADAPTERS:
        return "none"
    return "norm" if any(key.startswith("slots/") for key in pack.tensors) else "none"


def rename_classes(pack: Pack, names: Mapping[str, str]) -> Pack:
    """Return the pack with classes renamed in every task; `names`: from old to new.

    Classes that were in natural order are sorted again, because that is how sources list them.
    """
    known = {c for task in pack.card.tasks for c in task.classes}
    for old, new in names.items():
        if old not in known:
            raise BadInput(f"{pack.card.name}: no such class", got=old, available=sorted(known))
        if new in known and new not in names:
            raise BadInput(
                f"{pack.card.name}: expected a class name that does not exist yet",
                got=f"{old}={new}",
                try_="update with a SOURCE in which the two classes are merged",
            )
    tasks = [task.with_classes([names.get(c, c) for c in task.classes]) for task in pack.card.tasks]
    renamed = replace(pack, card=replace(pack.card, tasks=tuple(tasks)))
    ordered = [list(t.classes) == sorted(t.classes, key=natural) for t in pack.card.tasks]
    return select_classes(
        renamed,
        [
            task.with_classes(sorted(task.classes, key=natural)) if in_order else task
            for task, in_order in zip(tasks, ordered, strict=True)
        ],
    )


def select_classes(pack: Pack, tasks: Sequence[Task]) -> Pack:
    """Return the pack with only the classes of these tasks, in their order."""
    tensors = dict(pack.tensors)
    for old, new in zip(pack.card.tasks, tasks, strict=True):
        if old.kind not in BY_CLASS or old.classes == new.classes:
            continue
        if old.name in pack.card.heads:
            raise BadInput(
                f"{pack.card.name}/{old.name}: the rows of its head are not known, because the "
                "head is your own, so that classes cannot be sorted or dropped without training",
                got=pack.card.heads[old.name].object,
                try_="onetrunk update RUN NAME SOURCE, which trains a new head",
            )
        rows = torch.tensor([old.classes.index(c) for c in new.classes])
        for key in _head_keys(tensors, old):
            tensors[key] = tensors[key][rows].contiguous()
    return replace(pack, card=replace(pack.card, tasks=tuple(tasks)), tensors=tensors)


def _head_keys(tensors: Mapping[str, Tensor], task: Task) -> list[str]:
    """Return the keys of a built-in head's tensors that have one row for each output."""
    start = f"heads/of.{key_of(task.name)}."
    return [start + row for row in ROWS if start + row in tensors]


@torch.no_grad()
def copy_previous(model: Universal, previous: Pack) -> None:
    """Copy a pack into the domain of a scratch model: what fits, and the rows of its classes."""
    name = previous.card.name
    tasks = {task.name: task for task in previous.card.tasks}
    by_class: dict[str, tuple[Task, Task]] = {}
    different: set[str] = set()  # beginnings of the names of tensors that are not copied
    for task in model.domains[name].tasks:
        old = tasks.get(task.name)
        own = previous.card.heads.get(task.name) or model.domains[name].heads.get(task.name)
        if own is not None and (old != task or previous.card.heads != model.domains[name].heads):
            different.add(f"heads/of.{key_of(task.name)}.")  # a user's head begins anew
        elif old is not None and old.kind == task.kind and task.kind in BY_CLASS and own is None:
            by_class |= dict.fromkeys(_head_keys(previous.tensors, task), (old, task))
    for key, tensor in model.own(name).items():
        source = previous.tensors.get(key)
        if source is None or key.startswith(tuple(different)):
            continue
        if key in by_class and source.shape[1:] == tensor.shape[1:]:
            old, task = by_class[key]
            for row, c in enumerate(task.classes):
                if c in old.classes:
                    tensor[row].copy_(source[old.classes.index(c)])
        elif key not in by_class and source.shape == tensor.shape:
            tensor.copy_(source)


def check_unshared_heads(model: Universal, name: str) -> None:
    """Refuse a domain whose heads are shared: their classes cannot be changed."""
    if any(isinstance(head, SharedHead) for head in model.heads_of(name).of.values()):
        raise BadInput(
            f"{name}: its classes cannot change, because its heads are shared with other domains",
            got="sharing = 'full'",
            try_="onetrunk remove it, and add it again",
        )
