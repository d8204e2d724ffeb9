"""A card: what a model knows of one domain, without its images; a pack carries it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
from onetrunk.data.task import Task, check_name
from onetrunk.errors import BadInput


@dataclass(frozen=True)
class Card:
    """A domain's name, its tasks with their classes, its pixels' contract, where it came from."""

    name: str
    tasks: tuple[Task, ...]
    pixels: Pixels
    adapters: str = "none"
    provenance: Mapping[str, Any] = field(default_factory=dict)  # how it was trained
    scores: Mapping[str, Any] = field(default_factory=dict)
    rank: int | None = None  # of the adapters, where the user chose it

    def __post_init__(self) -> None:
        check_name(self.name, "domain")
        if not self.tasks:
            raise BadInput(f"domain {self.name}: it has no task", try_="name at least one")

    @classmethod
    def of(cls, domain: Domain, adapters: str, rank: int | None = None) -> Card:
        """What of a domain a model keeps."""
        return cls(domain.name, domain.tasks, domain.pixels, adapters, rank=rank)

    def task(self, name: str) -> Task:
        """The task of this name."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise BadInput(
            f"domain {self.name} has no such task",
            got=name,
            available=[task.name for task in self.tasks],
        )

    def with_record(self, provenance: Mapping[str, Any], scores: Mapping[str, Any]) -> Card:
        """The same, with how it was trained and what it scored."""
        return replace(self, provenance=dict(provenance), scores=dict(scores))

    def to_json(self) -> dict[str, Any]:
        """A plain document; `from_json` reads it back."""
        tasks = [{**asdict(task), "classes": list(task.classes)} for task in self.tasks]
        return {
            "domain": self.name,
            "tasks": tasks,
            "pixels": self.pixels.to_json(),
            "adapters": self.adapters,
            **({} if self.rank is None else {"rank": self.rank}),
            "provenance": dict(self.provenance),
            "scores": dict(self.scores),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Card:
        """The card that `to_json` wrote; whatever is wrong with it is a BadInput."""
        try:
            tasks = []
            for task in document["tasks"]:
                texts = (*task["classes"], task["unit"], task["column"] or "")
                if not all(isinstance(text, str) for text in texts):
                    raise TypeError("a task's classes, unit and column are texts")
                if type(task["outputs"]) is not int or not 1 <= task["outputs"] <= 65_536:
                    raise TypeError("a task has 1 to 65536 outputs")
                tasks.append(Task(**task))
            pixels = Pixels.from_json(document["pixels"])
            numbers = (*pixels.size, pixels.margin, pixels.fill, *pixels.mean, *pixels.std)
            if not all(isinstance(n, int | float) for n in numbers) or len(pixels.size) != 2:
                raise TypeError("a size and a normalization are numbers")
            for key in ("provenance", "scores"):
                if not isinstance(document[key], dict):
                    raise TypeError(f"{key} is a table")
            rank = document.get("rank")
            if not isinstance(document["adapters"], str) or type(rank) not in (int, type(None)):
                raise TypeError("adapters is a name, rank a whole number")
            return cls(
                document["domain"],
                tuple(tasks),
                pixels,
                document["adapters"],
                document["provenance"],
                document["scores"],
                rank,
            )
        except BadInput:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput("this does not describe a domain", got=f"{error}"[:120]) from None
