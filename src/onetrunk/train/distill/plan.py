"""The plan of a distillation: the features and predictions of each teacher that are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onetrunk.config import Distill, Train
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.train.distill.feature_losses import name_for_batch
from onetrunk.train.distill.matching import match_features
from onetrunk.train.distill.stored_teachers import fixed_of
from onetrunk.train.distill.teachers import Teacher, feature_widths

Record = dict[str, list[dict[str, Any]]]  # by domain, one entry for each teacher


def plan(
    models: Mapping[str, Universal],
    domains: Sequence[Domain],
    teachers: Mapping[str, Sequence[Teacher]],
    distill: Distill,
    train: Train,
) -> Record:
    """Return the features and predictions of each teacher, as scores.json records them.

    All problems are raised as one BadInput. Domains whose batches are too small for the feature
    loss are printed as a note, and recorded with its fallback.
    """
    errors: list[OnetrunkError] = []
    record: Record = {}
    too_small: dict[str, str] = {}
    model_of = {name: model for model in models.values() for name in model.domains}
    for domain in domains:
        batch = domain.batch or train.batch
        assigned = teachers.get(domain.name, ())
        entries = record.setdefault(domain.name, [])
        errors += _view_errors(domain, assigned, distill, train)
        for teacher in assigned:
            try:
                loss = name_for_batch(distill.features, batch)
                widths = feature_widths(model_of[domain.name], domain.name)
                pairs = match_features(domain, teacher, distill, widths)
            except OnetrunkError as error:
                errors.append(error)
                continue
            embeds = [task.name for task in domain.tasks if task.kind == "embed"]
            predictions = [t for t in teacher.predictions if distill.logits and t not in embeds]
            if not pairs and not predictions:
                names = ", ".join(teacher.predictions) or "nothing"
                errors.append(
                    BadInput(
                        f"teacher {teacher.name}: it has no target for {domain.name}",
                        got=f"features = {distill.features!r}, predictions of {names}",
                        try_="logits = true, or features that it has",
                    )
                )
            entry: dict[str, Any] = {"teacher": teacher.name, "predictions": predictions}
            if pairs:
                entry |= {"features": [list(pair) for pair in pairs], "loss": loss}
                if loss != distill.features:
                    entry["replaces"] = distill.features
                    too_small[domain.name] = f"{domain.name} (batches of {batch}): {loss}"
            entries.append(entry)
    if errors:
        raise BadInput.several(errors)
    if too_small:
        say(f"note: batches too small for {distill.features}: {'; '.join(too_small.values())}")
    return record


def _view_errors(
    domain: Domain, teachers: Sequence[Teacher], distill: Distill, train: Train
) -> list[OnetrunkError]:
    """Return conflicts of the settings with the precomputed views of a domain."""
    try:
        fixed = fixed_of(teachers)
    except OnetrunkError as error:
        return [error]
    errors: list[OnetrunkError] = []
    if fixed is not None and distill.views not in (0, fixed.views):
        errors.append(
            BadInput(
                f"distill.views: the precomputed features of {domain.name} have "
                f"{fixed.views} views",
                got=distill.views,
                try_=f"views = {fixed.views}, or another file",
            )
        )
    if train.mixup and teachers and (fixed is not None or distill.views):
        errors.append(
            BadInput(
                f"train.mixup: the features of {domain.name} are precomputed from unmixed images",
                got=train.mixup,
                try_="mixup = 0, or views = 0 and no file of features",
            )
        )
    return errors
