"""The end of a run: the model, its scores on validation and test, and how they came about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from types import MappingProxyType
from typing import Any

import torch

from onetrunk.data.domain import Domain
from onetrunk.data.splitting import SPLITS
from onetrunk.eval.budget import budget
from onetrunk.eval.evaluate import evaluate_split
from onetrunk.nn.model_files import save_models
from onetrunk.nn.universal import Universal
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.selection import Selection

FORMAT = 1
NOBODY: Mapping[str, Any] = MappingProxyType({})  # taught it
OUTCOMES = "outcomes.safetensors"  # image by image: two runs are compared over the same ones


def finish(
    run: RunFolder,
    models: Mapping[str, Universal],
    domains: Sequence[Domain],
    chosen: Mapping[str, Selection],
    seed: int,
    device: torch.device,
    frozen: bool = False,
    taught: Mapping[str, Any] = NOBODY,
) -> dict[str, Any]:
    """Evaluate, write everything, scores.json last: with it the run is finished."""
    of = {name: model for model in models.values() for name in model.domains}
    evaluated = {
        split: evaluate_split(of, domains, split, device=device) for split in ("val", "test")
    }
    tables = {split: found.table() for split, found in evaluated.items()}
    for model in models.values():
        for name, card in model.domains.items():
            scores = {
                f"{split}/{row.task}/{row.metric}": row.value
                for split, table in tables.items()
                for row in table.rows
                if row.domain == name
            }
            model.domains[name] = card.with_record(card.provenance, scores)
    with run.writing("the model"):
        save_models(models, run.path)
        evaluated["test"].outcomes().save(run.path / OUTCOMES)
    document = {
        "format": FORMAT,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "frozen": frozen,
        **({"teachers": taught} if taught else {}),
        **{split: table.to_json() for split, table in tables.items()},
        "best": {
            part: {"step": s.step, "score": s.score if isfinite(s.score) else None}
            for part, s in chosen.items()
        },
        "own_best": {name: best for s in chosen.values() for name, best in s.own_best.items()},
        "bad": {d.name: {s: len(d.bad(s)) for s in SPLITS} for d in domains},
        "splits": {
            d.name: {"how": d.index.how, **{s: len(d.splits[s]) for s in SPLITS}} for d in domains
        },
        "budget": {part: budget(model).to_json() for part, model in models.items()},
    }
    found: dict[str, Any] = json.loads(run.finish(document).read_text("utf-8"))
    return found
