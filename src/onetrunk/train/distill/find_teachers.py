"""The teachers of each domain: from a recipe's or a caller's settings to `Teacher` objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from onetrunk.config import named_recipes
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.nn.saving import models_of
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.store.run_folder import RECIPE, SCORES
from onetrunk.train.distill.foreign import PREFIX, Foreign, ForeignTeacher, TimmCheckpoint
from onetrunk.train.distill.stored_teachers import PREFIX as STORED
from onetrunk.train.distill.stored_teachers import StoredTeacher
from onetrunk.train.distill.teachers import Specialist, Teacher

OneTeacher = str | Path | Universal | Foreign | Teacher
Teachers = OneTeacher | Sequence[OneTeacher]
# for all domains, or by domain, or by domain and task
TeacherSource = Teachers | Mapping[str, Teachers | Mapping[str, Teachers]]

MODEL = "model"  # the folder of a run that holds its networks
PYTHON = "python:"  # written into a recipe instead of a teacher that is a Python object
FORMS = ("a run's folder", "timm/NAME", "features:FILE", "Universal", "Foreign")


def find_teachers(
    source: TeacherSource, domains: Sequence[Domain], root: Path, logits: bool = True
) -> dict[str, list[Teacher]]:
    """Return the teachers of each domain.

    All problems are raised as one BadInput. Domains without a teacher are printed as a note.

    Args:
        root: Relative paths start here.
        logits: Whether the teachers' predictions are used as well as their features.
    """
    finder = _Finder(root, logits)
    errors: list[OnetrunkError] = []
    teachers: dict[str, list[Teacher]] = {}
    names = [domain.name for domain in domains]
    by_domain = source if isinstance(source, Mapping) else dict.fromkeys(names, source)
    for name in by_domain:
        if name not in names:
            errors.append(BadInput("distill.teachers: no such domain", got=name, available=names))
    for domain in domains:
        given = by_domain.get(domain.name, ())
        try:
            teachers[domain.name] = finder.of(domain, given, for_all=by_domain is not source)
        except OnetrunkError as error:
            errors.append(error)
    if not errors and not any(teachers.values()):
        errors.append(
            BadInput(
                "distill.teachers: expected a teacher of at least one domain of this run",
                got=", ".join(names),
                available=sorted(finder.known) or None,
            )
        )
    if errors:
        raise BadInput.several(errors)
    for line in [*finder.notes, *_notes(teachers)]:
        say(f"note: {line}")
    return teachers


def _notes(teachers: Mapping[str, Sequence[Teacher]]) -> list[str]:
    """Return notes on domains without a teacher, and on teachers whose images are converted."""
    without = [name for name, assigned in teachers.items() if not assigned]
    converted = [
        name
        for name, assigned in teachers.items()
        if any(
            converter.changes_images
            for teacher in assigned
            if (converter := getattr(teacher, "converter", None)) is not None
        )
    ]
    notes = []
    if without:
        notes.append(f"no teacher for {', '.join(without)}: trained from labels alone")
    if converted:
        notes.append(
            f"the teachers of {', '.join(converted)} use another image size or normalization; "
            "images are converted for them"
        )
    return notes


class _Finder:
    """Finds teachers; every run and every checkpoint is read once for all domains."""

    def __init__(self, root: Path, logits: bool) -> None:
        self.root = root
        self.logits = logits
        self.runs: dict[Path, dict[str, Universal]] = {}
        self.checkpoints: dict[str, TimmCheckpoint] = {}
        self.known: set[str] = set()  # domains of the runs
        self.notes: list[str] = []

    def of(
        self, domain: Domain, source: Teachers | Mapping[str, Teachers], for_all: bool
    ) -> list[Teacher]:
        """Return the teachers of a domain; `for_all`: the source was given for all domains."""
        tasks = [task.name for task in domain.tasks]
        if isinstance(source, Mapping):
            for task in source:
                if task not in tasks:
                    raise BadInput(
                        f"distill.teachers.{domain.name}: no such task", got=task, available=tasks
                    )
            return [
                t for task, one in source.items() for t in self._from_sources(domain, one, [task])
            ]
        return self._from_sources(domain, source, tasks, for_all)

    def _from_sources(
        self, domain: Domain, source: Teachers, tasks: Sequence[str], for_all: bool = False
    ) -> list[Teacher]:
        several = source if isinstance(source, list | tuple) else [cast(OneTeacher, source)]
        return [
            teacher for one in several for teacher in self._from_source(domain, one, tasks, for_all)
        ]

    def _from_source(
        self, domain: Domain, source: OneTeacher, tasks: Sequence[str], for_all: bool
    ) -> Sequence[Teacher]:
        if isinstance(source, Foreign):
            return [ForeignTeacher(source, domain, tasks, self.logits)]
        if isinstance(source, Universal):
            models = dict.fromkeys(source.domains, source)
            return self._specialists(models, domain, "model", tasks, for_all)
        if not isinstance(source, str | Path):
            if not hasattr(source, "forward") or not hasattr(source, "widths"):
                raise BadInput(
                    f"distill.teachers: {domain.name}: expected a teacher",
                    got=type(source).__name__,
                    available=FORMS,
                    try_="Foreign(module, function, pixels=…)",
                )
            return [source]
        text = str(source)
        if text.startswith(PYTHON):
            raise BadInput(
                f"distill.teachers: {domain.name}: this teacher was a Python object",
                got=text,
                try_="ot.train(…, teachers=…, resume=True)",
            )
        if text.startswith(STORED):
            path = self.root / text.removeprefix(STORED)
            return [StoredTeacher(path, domain, tasks, self.logits)]
        if text.startswith(PREFIX):
            if text not in self.checkpoints:
                self.checkpoints[text] = TimmCheckpoint(text, self.root)
            teacher, notes = self.checkpoints[text].of(domain, tasks, self.logits)
            self.notes += notes
            return [teacher]
        folder = self.root / source
        if folder not in self.runs:
            self.runs[folder] = _models(folder)
        return self._specialists(self.runs[folder], domain, text, tasks, for_all)

    def _specialists(
        self,
        models: Mapping[str, Universal],
        domain: Domain,
        name: str,
        tasks: Sequence[str],
        for_all: bool,
    ) -> list[Teacher]:
        """Return the domains of a run that teach this domain, each with the tasks it teaches.

        The teacher of a task is the run's domain of the same name, else one called DOMAIN-TASK. If
        the run was given for this domain and has only one domain, that one is the teacher.
        """
        self.known.update(models)
        tasks_of: dict[str, list[str]] = {}
        for task in tasks:
            candidates = [domain.name, f"{domain.name}-{task}"]
            if len(models) == 1 and not for_all:
                candidates += models
            for candidate in candidates:
                if candidate in models and task in _tasks(models, candidate):
                    tasks_of.setdefault(candidate, []).append(task)
                    break
        if not tasks_of and not for_all:
            raise BadInput(
                f"teacher {name} has no domain and task for {domain.name}",
                got=", ".join(f"{domain.name}/{task}" for task in tasks),
                available=[f"{known}/{task}" for known in models for task in _tasks(models, known)],
            )
        return [
            Specialist(models[teacher], teacher, domain, names, name, self.logits)
            for teacher, names in tasks_of.items()
        ]


def _tasks(models: Mapping[str, Universal], name: str) -> list[str]:
    return [task.name for task in models[name].domains[name].tasks]


def _models(folder: Path) -> dict[str, Universal]:
    """Return the networks of a finished run, or of a saved model."""
    if (folder / RECIPE).is_file() and not (folder / SCORES).is_file():
        raise BadInput(
            f"teacher {folder}: this run is not finished",
            try_=f"onetrunk train {folder / RECIPE} --resume",
        )
    if not (folder / MODEL).is_dir():
        near = folder if folder.is_dir() else folder.parent
        recipe = folder.name if folder.name in named_recipes() else "RECIPE"
        raise BadInput(
            f"teacher {folder}: expected a finished run",
            got=str(folder),
            available=sorted(p.name for p in near.iterdir()) if near.is_dir() else (),
            try_=f"onetrunk train {recipe}",
        )
    return models_of(folder)
