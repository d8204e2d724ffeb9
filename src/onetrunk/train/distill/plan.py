"""Who teaches what: everything that does not fit, before training, and a record for the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onetrunk.config import Distill, Train
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.train.distill.cka import FEWEST
from onetrunk.train.distill.feature_losses import feature_loss, stands_in
from onetrunk.train.distill.pairs import pairs_of
from onetrunk.train.distill.stored_teachers import fixed_of
from onetrunk.train.distill.teachers import Teacher, widths

Record = dict[str, list[dict[str, Any]]]  # by domain, of each teacher


def plan(
    models: Mapping[str, Universal],
    domains: Sequence[Domain],
    teachers: Mapping[str, Sequence[Teacher]],
    distill: Distill,
    train: Train,
) -> Record:
    """What every teacher teaches; all that is wrong is one BadInput, a line each.

    A domain whose batches are too small for `cka` is said, and stands in the record with `cosine`.
    """
    problems: list[str] = []
    record: Record = {}
    small: dict[str, int] = {}
    of = {name: model for model in models.values() for name in model.domains}
    for domain in domains:
        batch = domain.batch or train.batch
        lines = record.setdefault(domain.name, [])
        problems += views_of(domain, teachers.get(domain.name, ()), distill, train)
        for teacher in teachers.get(domain.name, ()):
            try:
                feature_loss(distill.features, batch)  # an own one may not be there
                pairs = pairs_of(domain, teacher, distill, widths(of[domain.name], domain.name))
            except OnetrunkError as error:
                problems += str(error).split("\n")
                continue
            embeds = [task.name for task in domain.tasks if task.kind == "embed"]
            predictions = [t for t in teacher.predictions if distill.logits and t not in embeds]
            if not pairs and not predictions:
                problems.append(
                    str(
                        BadInput(
                            f"teacher {teacher.name}: {domain.name}: it teaches nothing",
                            got=f"features = {distill.features!r}, {_said(teacher)}",
                            try_="logits = true, or features it has",
                        )
                    )
                )
            replaced = bool(pairs) and stands_in(distill.features, batch)
            if replaced:
                small[domain.name] = batch
            line: dict[str, Any] = {"teacher": teacher.name, "predictions": predictions}
            if pairs:
                line["features"] = [list(pair) for pair in pairs]
                line["loss"] = "cosine" if replaced else distill.features
            lines.append(line | ({"cosine_for_cka": batch} if replaced else {}))
    if problems:
        raise BadInput.several([BadInput(line) for line in problems])
    if small:
        said = ", ".join(f"{name} {batch}" for name, batch in small.items())
        say(f"note: cosine stands in for cka in batches of fewer than {FEWEST} images: {said}")
    return record


def views_of(
    domain: Domain, teachers: Sequence[Teacher], distill: Distill, train: Train
) -> list[str]:
    """What does not fit views that were looked at before training."""
    try:
        fixed = fixed_of(teachers)
    except OnetrunkError as error:
        return [str(error)]
    problems = []
    if fixed is not None and distill.views not in (0, fixed.views):
        problems.append(
            str(
                BadInput(
                    f"distill.views: {domain.name}'s file of features has {fixed.views} views",
                    got=distill.views,
                    try_=f"views = {fixed.views}, or another file",
                )
            )
        )
    if train.mixup and teachers and (fixed is not None or distill.views):
        problems.append(
            str(
                BadInput(
                    f"train.mixup: {domain.name}'s teachers have looked at images as they are, and "
                    "mixed ones are others in each step",
                    got=train.mixup,
                    try_="mixup = 0, or views = 0 and no file of features",
                )
            )
        )
    return problems


def _said(teacher: Teacher) -> str:
    return f"answers to {', '.join(teacher.predictions) or 'nothing'}"
