"""Which teachers there are: from what a recipe or a caller says to one list for each domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, OnetrunkError, wrong
from onetrunk.learn.distill.teachers import Specialist, Teacher
from onetrunk.model.saved import models_of
from onetrunk.model.universal import Universal

Given = str | Path | Mapping[str, Any]  # as [distill] says it, or with Teachers in a text's place


def find_teachers(
    given: Given, domains: Sequence[Domain], root: Path, logits: bool = True
) -> dict[str, list[Teacher]]:
    """By domain its teachers; all that is wrong with them is one BadInput, a line each."""
    finder = Finder(root, logits)
    problems: list[str] = []
    found: dict[str, list[Teacher]] = {}
    names = [domain.name for domain in domains]
    for name in given if isinstance(given, Mapping) else ():
        if name not in names:
            problems.append(str(wrong("distill.teachers: no such domain", came=name, exists=names)))
    for domain in domains:
        mine: Any = given.get(domain.name, ()) if isinstance(given, Mapping) else given
        try:
            found[domain.name] = finder.of(domain, mine, alone=not isinstance(given, Mapping))
        except OnetrunkError as error:
            problems += str(error).split("\n")
    if not problems and not any(found.values()):
        problems.append(str(wrong("distill.teachers: none of them teaches any domain here")))
    if problems:
        raise BadInput("\n".join(dict.fromkeys(problems)))
    return found


class Finder:
    """Reads each run once."""

    def __init__(self, root: Path, logits: bool) -> None:
        self.root = root
        self.logits = logits
        self.runs: dict[Path, dict[str, Universal]] = {}

    def of(self, domain: Domain, given: Any, alone: bool) -> list[Teacher]:
        """The teachers of one domain; `alone`: one run was named for all domains."""
        tasks = [task.name for task in domain.tasks]
        if isinstance(given, Mapping):
            for task in given:
                if task not in tasks:
                    raise wrong(
                        f"distill.teachers.{domain.name}: no such task", came=task, exists=tasks
                    )
            return [t for task, one in given.items() for t in self._each(domain, one, [task])]
        return self._each(domain, given, tasks)

    def _each(self, domain: Domain, given: Any, tasks: Sequence[str]) -> list[Teacher]:
        several = given if isinstance(given, list | tuple) else [given]
        return [teacher for one in several for teacher in self._one(domain, one, tasks)]

    def _one(self, domain: Domain, given: Any, tasks: Sequence[str]) -> list[Teacher]:
        if not isinstance(given, str | Path):
            return [given]
        return self._run(domain, self.root / given, str(given), tasks)

    def _run(self, domain: Domain, folder: Path, name: str, tasks: Sequence[str]) -> list[Teacher]:
        """A run teaches a task by its domain of the student's name, or by one called DOMAIN-TASK;
        where it has one domain alone and was named for this one, by that."""
        if folder not in self.runs:
            self.runs[folder] = models_of(folder)
        models = self.runs[folder]
        by: dict[str, dict[str, str]] = {}
        for task in tasks:
            for known_as in (domain.name, f"{domain.name}-{task}"):
                if known_as in models:
                    theirs = [t.name for t in models[known_as].domains[known_as].tasks]
                    if task in theirs:
                        by.setdefault(known_as, {})[task] = task
                        break
        return [
            Specialist(models[known_as], known_as, domain, mapped, name)
            for known_as, mapped in by.items()
        ]
