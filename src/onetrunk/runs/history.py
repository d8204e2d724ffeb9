"""A pack's history, in its header: made, added, updated; when, with which settings, from how much.

No path, no host, no user: what a pack says of its making may be read by whoever it is sent to.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from onetrunk.config.add_recipe import AddRecipe
from onetrunk.data.domain import Domain
from onetrunk.data.splitting import SPLITS
from onetrunk.nn.card import Card

MOST = 200  # entries: the first and the latest; a header has 1 MB
RELABELLED = "relabelled"
SAID = ("adapters", "rank", "budget", "few", "decay")


def entry(
    what: str, domain: Domain, growth: AddRecipe, chosen: str, scores: Mapping[str, Any]
) -> dict[str, Any]:
    """One event of a pack's life."""
    train = growth.train.model_dump(exclude={"loggers", "workers", "keep", "log", "checkpoint"})
    return {
        "what": what,
        "date": now(),
        "seed": growth.seed,
        "add": {key: getattr(growth.add, key) for key in SAID},
        "train": {key: value for key, value in train.items() if value is not None},
        "images": {split: len(domain.splits[split]) for split in SPLITS},
        "classes": {task.name: len(task.classes) for task in domain.tasks if task.classes},
        "chosen": chosen,
        "scores": dict(scores),
    }


def now() -> str:
    """The date and the time, as packs say them."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def history_of(card: Card) -> list[dict[str, Any]]:
    """What a card tells of its life; of one that was trained with its trunk: that."""
    found = card.provenance.get("history")
    if isinstance(found, list):
        return found
    said = {k: v for k, v in card.provenance.items() if k != "history"}
    return [{"what": "made", **said, "scores": dict(card.scores)}] if said or card.scores else []


def told(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As long as a header may be: the first events and the latest."""
    return history if len(history) <= MOST else [history[0], *history[-(MOST - 1) :]]


def called_now(card: Card, name: str) -> str | None:
    """What a class of the images that were last learned from is called since; None: it is gone."""
    history = history_of(card)
    last = max((i for i, e in enumerate(history) if e.get("what") != RELABELLED), default=-1)
    now: str | None = name
    for event in history[last + 1 :]:
        now = event.get("renamed", {}).get(now, now)
        if now in event.get("dropped", ()):
            return None
    return now
