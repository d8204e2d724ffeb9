"""The history in a pack's header: when it was trained, added and updated, how, with which scores.

Paths, hosts and users are not part of it: a pack may be sent to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from onetrunk.config.add_recipe import AddRecipe
from onetrunk.data.domain import Domain
from onetrunk.data.splitting import SPLITS
from onetrunk.nn.card import Card

MAX_EVENTS = 200  # a header has at most 1 MB
ADDED, UPDATED, RELABELED, IMPORTED = "added", "updated", "relabeled", "imported"
SETTINGS = ("adapters", "rank", "budget", "few", "decay")  # of [add]
# keys of [train] that do not change the result
NEUTRAL = {"loggers", "workers", "keep_checkpoints", "log_every", "checkpoint_every"}


def event(
    kind: str, domain: Domain, recipe: AddRecipe, chosen: str, scores: Mapping[str, Any]
) -> dict[str, Any]:
    """One event: a domain was added or updated.

    Args:
        kind: ADDED or UPDATED.
        domain: The images that the pack was trained on.
        recipe: All settings.
        chosen: Why these adapters were chosen.
        scores: The headline and other scores by `SPLIT/TASK/METRIC`.
    """
    train = recipe.train.model_dump(exclude=NEUTRAL)
    return {
        "event": kind,
        "date": now(),
        "seed": recipe.seed,
        "add": {key: getattr(recipe.add, key) for key in SETTINGS},
        "train": {key: value for key, value in train.items() if value is not None},
        "images": {split: len(domain.splits[split]) for split in SPLITS},
        "classes": {task.name: len(task.classes) for task in domain.tasks if task.classes},
        "chosen": chosen,
        "scores": dict(scores),
    }


def now() -> str:
    """The date and time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def events(card: Card) -> list[dict[str, Any]]:
    """The history of a card; of one that was trained with its trunk, that training."""
    history = card.provenance.get("history")
    if isinstance(history, list):
        return history
    made = {key: value for key, value in card.provenance.items() if key != "history"}
    if not made and not card.scores:
        return []
    return [{"event": "trained", **made, "scores": dict(card.scores)}]


def extended(card: Card | None, new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The history of a card with one event more; the first and the latest events are kept."""
    history = [*([] if card is None else events(card)), dict(new)]
    return history if len(history) <= MAX_EVENTS else [history[0], *history[1 - MAX_EVENTS :]]


def current_class(card: Card, name: str) -> str | None:
    """The present name of a class of the images of the last training; None if it was dropped."""
    history = events(card)
    last = max((i for i, e in enumerate(history) if e.get("event") != RELABELED), default=-1)
    now: str | None = name
    for each in history[last + 1 :]:
        now = each.get("renamed", {}).get(now, now)
        if now in each.get("dropped", ()):
            return None
    return now
