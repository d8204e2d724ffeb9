"""Which teachers there are: from what a recipe or a caller says to one list for each domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onetrunk.config import named_recipes
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.nn.saving import models_of
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.store.run_folder import RECIPE, SCORES
from onetrunk.train.distill.foreign import Foreign, Guest
from onetrunk.train.distill.pretrained import PREFIX, Checkpoint
from onetrunk.train.distill.stored_teachers import PREFIX as STORED
from onetrunk.train.distill.stored_teachers import Stored
from onetrunk.train.distill.teachers import Specialist, Teacher

# as [distill] says it, or with what a file cannot say in a text's place
Given = str | Path | Universal | Foreign | Teacher | Mapping[str, Any] | Sequence[Any]
MODEL = "model"  # of a run's folder
PYTHON = "python:"  # what a written recipe says of a teacher that was an object


def find_teachers(
    given: Given, domains: Sequence[Domain], root: Path, logits: bool = True
) -> dict[str, list[Teacher]]:
    """By domain its teachers; all that is wrong with them is one BadInput, a line each.

    `logits`: whether they are asked for their predictions; a domain that nobody teaches is noted.
    """
    finder = Finder(root, logits)
    problems: list[str] = []
    found: dict[str, list[Teacher]] = {}
    names = [domain.name for domain in domains]
    for name in given if isinstance(given, Mapping) else ():
        if name not in names:
            problems.append(
                str(BadInput("distill.teachers: no such domain", got=name, available=names))
            )
    for domain in domains:
        mine: Any = given.get(domain.name, ()) if isinstance(given, Mapping) else given
        try:
            found[domain.name] = finder.of(domain, mine, alone=not isinstance(given, Mapping))
        except OnetrunkError as error:
            problems += str(error).split("\n")
    if not problems and not any(found.values()):
        said = given if isinstance(given, str | Path) else ", ".join(names)
        problems.append(
            str(
                BadInput(
                    "distill.teachers: none of them teaches a domain here",
                    got=", ".join(names),
                    available=sorted(finder.known) or [str(said)],
                )
            )
        )
    if problems:
        raise BadInput.several([BadInput(line) for line in problems])
    for line in [*finder.notes, *untaught(found), *resized(found)]:
        say(f"note: {line}")
    return found


def untaught(found: Mapping[str, Sequence[Teacher]]) -> list[str]:
    """A line where nobody teaches a domain: it learns from its labels alone."""
    alone = [name for name, teachers in found.items() if not teachers]
    return [f"no teacher for {', '.join(alone)}: its labels alone"] if alone else []


def resized(found: Mapping[str, Sequence[Teacher]]) -> list[str]:
    """A line where teachers see the views at another size or with another normalization."""
    names = [
        name
        for name, teachers in found.items()
        if any(eyes.changes for t in teachers if (eyes := getattr(t, "eyes", None)) is not None)
    ]
    if not names:
        return []
    return [f"views are resized or normalized anew for the teachers of {', '.join(names)}"]


class Finder:
    """Reads each run and each checkpoint once."""

    def __init__(self, root: Path, logits: bool) -> None:
        self.root = root
        self.logits = logits
        self.runs: dict[Path, dict[str, Universal]] = {}
        self.checkpoints: dict[str, Checkpoint] = {}
        self.known: set[str] = set()  # domains of the runs
        self.notes: list[str] = []

    def of(self, domain: Domain, given: Any, alone: bool) -> list[Teacher]:
        """The teachers of one domain; `alone`: they were named for all domains together."""
        tasks = [task.name for task in domain.tasks]
        if isinstance(given, Mapping):
            for task in given:
                if task not in tasks:
                    raise BadInput(
                        f"distill.teachers.{domain.name}: no such task", got=task, available=tasks
                    )
            return [t for task, one in given.items() for t in self._each(domain, one, [task])]
        return self._each(domain, given, tasks, alone)

    def _each(
        self, domain: Domain, given: Any, tasks: Sequence[str], alone: bool = False
    ) -> list[Teacher]:
        several = given if isinstance(given, list | tuple) else [given]
        return [teacher for one in several for teacher in self._one(domain, one, tasks, alone)]

    def _one(
        self, domain: Domain, given: Any, tasks: Sequence[str], alone: bool
    ) -> Sequence[Teacher]:
        if isinstance(given, Foreign):
            return [Guest(given, domain, tasks, self.logits)]
        if isinstance(given, Universal):
            models = dict.fromkeys(given.domains, given)
            return self._taught(models, domain, "model", tasks, alone)
        if not isinstance(given, str | Path):
            if not hasattr(given, "look"):
                raise BadInput(
                    f"distill.teachers: {domain.name}: this is no teacher",
                    got=type(given).__name__,
                    available=(
                        "a run's folder",
                        "timm/NAME",
                        "features:FILE",
                        "Universal",
                        "Foreign",
                    ),
                    try_="Foreign(module, look, pixels=…)",
                )
            return [given]
        text = str(given)
        if text.startswith(PYTHON):
            raise BadInput(
                f"distill.teachers: {domain.name}: a recipe cannot say this teacher",
                got=text,
                try_="ot.train(…, teachers=…, resume=True) goes on with it",
            )
        if text.startswith(STORED):
            path = self.root / text.removeprefix(STORED)
            return [Stored(path, domain, tasks, self.logits)]
        if text.startswith(PREFIX):
            if text not in self.checkpoints:
                self.checkpoints[text] = Checkpoint(text, self.root)
            guest, notes = self.checkpoints[text].of(domain, tasks, self.logits)
            self.notes += notes
            return [guest]
        folder = self.root / given
        if folder not in self.runs:
            self.runs[folder] = _models(folder)
        return self._taught(self.runs[folder], domain, text, tasks, alone)

    def _taught(
        self,
        models: Mapping[str, Universal],
        domain: Domain,
        name: str,
        tasks: Sequence[str],
        alone: bool,
    ) -> list[Teacher]:
        """A run teaches a task by its domain of the student's name, or by one called DOMAIN-TASK;
        where it has one domain alone and was named for this one, by that."""
        self.known.update(models)
        by: dict[str, list[str]] = {}
        for task in tasks:
            tried = [domain.name, f"{domain.name}-{task}"]
            if len(models) == 1 and not alone:
                tried += models
            for known_as in tried:
                if known_as in models and task in _tasks(models, known_as):
                    by.setdefault(known_as, []).append(task)
                    break
        if not by and not alone:
            has = [f"{known}/{task}" for known in models for task in _tasks(models, known)]
            raise BadInput(
                f"teacher {name} does not know {domain.name}",
                got=", ".join(f"{domain.name}/{task}" for task in tasks),
                available=has,
            )
        return [
            Specialist(models[known_as], known_as, domain, mine, name, self.logits)
            for known_as, mine in by.items()
        ]


def _tasks(models: Mapping[str, Universal], name: str) -> list[str]:
    return [task.name for task in models[name].domains[name].tasks]


def _models(folder: Path) -> dict[str, Universal]:
    """The networks of a run's folder, or of a model's; a run that is not finished is said so."""
    if (folder / RECIPE).is_file() and not (folder / SCORES).is_file():
        raise BadInput(
            f"teacher {folder}: this run is not finished",
            try_=f"onetrunk train {folder / RECIPE} --resume",
        )
    if not (folder / MODEL).is_dir():
        near = folder if folder.is_dir() else folder.parent
        known = folder.name in named_recipes()
        raise BadInput(
            f"teacher {folder}: no finished run is there",
            got=str(folder),
            available=sorted(p.name for p in near.iterdir()) if near.is_dir() else (),
            try_=f"onetrunk train {folder.name if known else 'RECIPE'} makes one",
        )
    return models_of(folder)
