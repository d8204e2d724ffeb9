"""Make OUT the run of the chosen network, with the own networks of domains that need them."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from onetrunk.config import Recipe
from onetrunk.eval.budget import budget
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.table import Row, Table
from onetrunk.nn.model_files import save_models
from onetrunk.nn.saving import load
from onetrunk.runs.environment import NAME as ENVIRONMENT
from onetrunk.runs.open import MODEL, OUTCOMES, SPLITS, read_json
from onetrunk.store.atomic import atomic_folder, write_atomic
from onetrunk.store.places import relative_to
from onetrunk.store.run_folder import METRICS, RECIPE, SCORES
from onetrunk.store.strict_json import strict_json

COPIED = (ENVIRONMENT, METRICS, "splits.safetensors")
BY_DOMAIN = ("own_best", "bad", "splits")


def keep(
    folder: Path,
    stage: Path,
    specialists: Path,
    own: Collection[str],
    train: Mapping[str, Any],
) -> None:
    """Write the files of a run; scores.json, which marks it as finished, comes last.

    Args:
        folder: The folder of the result.
        stage: The run of the chosen network.
        specialists: The run of the specialists.
        own: The domains that keep their specialists.
        train: The [train] settings of the recipe, which `onetrunk add` takes over. Those of the
            stage itself are in its own folder.
    """
    if (folder / SCORES).is_file():
        return
    recipe = Recipe.read(stage)
    out = relative_to(folder, recipe.root)
    document = {**recipe.document(), "out": out, "train": dict(train)}
    moved = Recipe.from_document(document, stage).moved_to(folder)
    write_atomic(folder / RECIPE, moved.to_toml())
    for name in COPIED:
        if (stage / name).is_file():
            write_atomic(folder / name, (stage / name).read_bytes())
    scores = read_json(stage / SCORES)
    outcomes = Outcomes.open(stage / OUTCOMES)
    if own:
        scores, outcomes = _with_own(folder, stage, specialists, own, scores, outcomes)
    else:
        with atomic_folder(folder / MODEL) as place:
            shutil.copytree(stage / MODEL, place, dirs_exist_ok=True)
    outcomes.save(folder / OUTCOMES)
    write_atomic(folder / SCORES, strict_json(scores, indent=2) + "\n")


def _with_own(
    folder: Path,
    stage: Path,
    specialists: Path,
    own: Collection[str],
    scores: dict[str, Any],
    outcomes: Outcomes,
) -> tuple[dict[str, Any], Outcomes]:
    """Write the model without some domains, beside their specialists; return merged scores."""
    one = load(stage)
    for name in own:
        one.remove(name)
    save_models({"": one} | {name: load(specialists, name) for name in own}, folder)
    theirs, their_outcomes = read_json(specialists / SCORES), Outcomes.open(specialists / OUTCOMES)
    merged = dict(scores)
    for split in SPLITS:
        by_domain = [_rows_by_domain(document[split]) for document in (scores, theirs)]
        rows = [row for name in by_domain[0] for row in by_domain[name in own][name]]
        merged[split] = Table(tuple(rows), split).to_json()
    for key in BY_DOMAIN:
        merged[key] = _replaced(scores.get(key, {}), theirs.get(key, {}), own)
    merged["best"] = {**scores["best"], **{name: theirs["best"][name] for name in own}}
    merged["budget"] = {
        "": budget(one).to_json(),
        **{name: theirs["budget"][name] for name in own},
    }
    tasks = {
        key: (their_outcomes if key[0] in own else outcomes).tasks[key] for key in outcomes.tasks
    }
    return merged, Outcomes(outcomes.split, tasks, outcomes.image_digests)


def _rows_by_domain(table: Mapping[str, Any]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in Table.from_json(table).rows:
        found.setdefault(row.domain, []).append(row)
    return found


def _replaced(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], own: Collection[str]
) -> dict[str, Any]:
    """Return a table by domain, with the values of own networks for their domains."""
    return {
        name: (theirs.get(name, value) if name in own else value) for name, value in ours.items()
    }
