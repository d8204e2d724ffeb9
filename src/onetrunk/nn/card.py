"""A card: the description of one domain in a model, which is stored in its pack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
from onetrunk.data.task import Task, check_name
from onetrunk.errors import BadInput
from onetrunk.objects import Named
from onetrunk.settings import fields_of, read_dataclass


@dataclass(frozen=True)
class Card:
    """A domain's name, tasks with classes, pixel pipeline, adapters, provenance and scores.

    Attributes:
        heads: Users' heads, by task: what another process imports to build them again.
    """

    name: str
    tasks: tuple[Task, ...]
    pixels: Pixels
    adapters: str = "none"
    provenance: Mapping[str, Any] = field(default_factory=dict)  # how it was trained
    scores: Mapping[str, Any] = field(default_factory=dict)
    rank: int | None = None  # of the adapters; None: the default
    heads: Mapping[str, Named] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, "domain")
        if not self.tasks:
            raise BadInput(f"domain {self.name} has no task", try_="at least one task")

    @classmethod
    def of(cls, domain: Domain, adapters: str, rank: int | None = None) -> Card:
        """Return the card of a domain with these adapters."""
        heads = {task: Named.of(head) for task, head in domain.settings.heads.items()}
        return cls(domain.name, domain.tasks, domain.pixels, adapters, rank=rank, heads=heads)

    def task(self, name: str) -> Task:
        """Return the task of this name."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise BadInput(
            f"domain {self.name} has no such task",
            got=name,
            available=[task.name for task in self.tasks],
        )

    def with_record(self, provenance: Mapping[str, Any], scores: Mapping[str, Any]) -> Card:
        """Return the card with another provenance and other scores."""
        return replace(self, provenance=dict(provenance), scores=dict(scores))

    def to_json(self) -> dict[str, Any]:
        """Return a plain document; `from_json` reads it."""
        return {
            "domain": self.name,
            "tasks": [{**asdict(task), "classes": list(task.classes)} for task in self.tasks],
            "pixels": self.pixels.to_json(),
            "adapters": self.adapters,
            **({} if self.rank is None else {"rank": self.rank}),
            **({"heads": {k: asdict(v) for k, v in self.heads.items()}} if self.heads else {}),
            "provenance": dict(self.provenance),
            "scores": dict(self.scores),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Card:
        """Return the card in a document, which may have other keys; raise BadInput if it is wrong.

        Args:
            document: From `to_json`, or from a file that may have been changed.
        """
        try:
            name = check_name(document["domain"], "domain")
            for number, task in enumerate(document["tasks"]):
                _check(Task, task, f"tasks[{number}]")
            _check(Pixels, document["pixels"], "pixels")
            for task, head in document.get("heads", {}).items():
                _check(Named, head, f"heads.{task}")
            known = {key: document[key] for key in fields_of(cls) if key in document}
            return read_dataclass(cls, {**known, "name": name})
        except BadInput:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput("this does not describe a domain", got=f"{error}"[:120]) from None


def _check(kind: type[Task | Pixels | Named], document: Mapping[str, Any], place: str) -> None:
    """Raise BadInput if a part of a card is wrong or has unknown keys."""
    try:
        read_dataclass(kind, document)
    except BadInput as error:
        raise error.within(place) from None
