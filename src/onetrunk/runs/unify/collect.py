"""One run of several specialists, made from a run of each."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onetrunk.config import Recipe
from onetrunk.data.kept_splits import read_splits, save_splits
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.table import Table
from onetrunk.nn.model_files import TRUNK
from onetrunk.runs.environment import NAME as ENVIRONMENT
from onetrunk.runs.open import MODEL, OUTCOMES, SPLITS, read_json
from onetrunk.store.atomic import atomic_folder
from onetrunk.store.run_folder import METRICS, SCORES, RunFolder

MERGED = ("best", "own_best", "bad", "splits", "budget")  # tables of scores.json, by part or domain


def collect(runs: Mapping[str, Path], recipe: Recipe) -> Path:
    """Write the run that holds the networks of several runs of one domain each.

    Nothing is evaluated again: scores and outcomes are those of the runs.

    Args:
        runs: The finished runs, by domain.
        recipe: The recipe for all domains; its training settings are not those of each network.
    """
    folder = recipe.out_folder
    if (folder / SCORES).is_file():
        return folder
    with RunFolder.open(folder, recipe.text_in(folder), resume=True) as run:
        scores = {name: read_json(path / SCORES) for name, path in runs.items()}
        first = next(iter(runs.values()))
        run.write(ENVIRONMENT, _environment(runs, read_json(first / ENVIRONMENT)))
        save_splits(folder, {n: s for path in runs.values() for n, s in read_splits(path).items()})
        metrics = "".join((path / METRICS).read_text("utf-8") for path in runs.values())
        run.write(METRICS, metrics)
        with run.writing("the model"):
            with atomic_folder(folder / MODEL) as place:
                for name, path in runs.items():
                    shutil.copytree(_network(path, name), place / name, dirs_exist_ok=True)
            _outcomes(runs).save(folder / OUTCOMES)
        run.finish(_scores(scores))
    return folder


def _network(run: Path, name: str) -> Path:
    """Return the folder of the only network of a run."""
    place = run / MODEL
    return place if (place / TRUNK).is_file() else place / name


def _environment(runs: Mapping[str, Path], first: Mapping[str, Any]) -> dict[str, Any]:
    data = {n: d for p in runs.values() for n, d in read_json(p / ENVIRONMENT)["data"].items()}
    return {**first, "data": data}


def _outcomes(runs: Mapping[str, Path]) -> Outcomes:
    every = [Outcomes.open(path / OUTCOMES) for path in runs.values()]
    return Outcomes(
        every[0].split,
        {key: task for each in every for key, task in each.tasks.items()},
        {name: digest for each in every for name, digest in each.image_digests.items()},
    )


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the scores of all runs as those of one."""
    first = next(iter(scores.values()))
    merged = dict(first)
    for key in MERGED:
        merged[key] = {k: v for each in scores.values() for k, v in each.get(key, {}).items()}
    for split in SPLITS:
        rows = [row for each in scores.values() for row in Table.from_json(each[split]).rows]
        merged[split] = Table(tuple(rows), split).to_json()
    return merged
