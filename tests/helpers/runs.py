"""Run folders as training leaves them, with small untrained networks and invented metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onetrunk.data.domain import Domain
from onetrunk.data.splitting import SPLITS
from onetrunk.eval.intervals import interval
from onetrunk.eval.metrics import SCORES, as_error
from onetrunk.eval.outcomes import Outcomes, TaskOutcomes
from onetrunk.eval.table import Row, Table
from onetrunk.nn.model_files import save_models
from onetrunk.report import gather
from onetrunk.runs.open import Run
from tests.helpers.small import network

STEPS = 400


@contextmanager
def opening(domains: Sequence[Domain] | Callable[[Path], list[Domain]]) -> Iterator[None]:
    """Let reports open these domains for every run, and spend no time on latency."""
    open_domains = domains if callable(domains) else lambda _: list(domains)
    with pytest.MonkeyPatch.context() as patch:
        found = property(lambda run: {d.name: d for d in open_domains(run.folder)})
        patch.setattr(Run, "domains", found)
        patch.setattr(gather, "LATENCY_SECONDS", 0.0)
        yield


def outcomes(
    domains: Sequence[Domain], errors: Mapping[str, float], seed: int, images: int = 0
) -> Outcomes:
    """Return outcomes with these errors in percent; hard images are partly the same in all runs."""
    tasks = {}
    for domain in domains:
        count = images or len(domain.test)
        hard = np.random.default_rng([1, len(domain.name)]).random(count)  # for every network
        own = np.random.default_rng([2, seed, len(domain.name)]).random(count)
        rank = np.argsort(np.argsort(0.7 * hard + 0.3 * own)) / count
        error = errors[domain.name] / 100
        for task in domain.tasks:
            ones = np.ones(count)
            if task.kind == "segment":
                classes = len(task.classes)
                labelled = np.full((count, classes), 100)
                right = (100 * (1 - error) + 20 * (rank[:, None] - 0.5)).clip(0, 100)
                areas = np.stack([np.repeat(right, classes, 1), labelled, labelled], 1)
                tasks[domain.name, task.name] = TaskOutcomes(
                    "segment", {"areas": areas.astype(np.int32)}
                )
            elif task.kind == "multilabel":
                continue
            else:
                wrong = (rank * count >= count - round(error * count)).astype(float)
                sums = 1 - wrong if task.kind == "embed" else wrong
                if task.kind in ("depth", "normals", "regress"):
                    sums = (0.5 + rank) * error * (20 if task.kind == "normals" else 1)
                arrays = {"sum": sums[:, None] if task.kind == "regress" else sums, "count": ones}
                tasks[domain.name, task.name] = TaskOutcomes(task.kind, arrays)
    return Outcomes("test", tasks, {domain.name: "0" * 64 for domain in domains})


def table(found: Outcomes, domains: Sequence[Domain], split: str = "test") -> Table:
    """Return headlines with intervals, and invented other metrics."""
    rows = []
    for domain in domains:
        for task in domain.tasks:
            first, *others = SCORES[task.kind].metrics
            part = found.tasks.get((domain.name, task.name))
            value = 40.0 if part is None else part.headline()
            low, high = (None, None) if part is None else interval(domain.name, part)
            count = len(domain.test) if part is None else part.images
            names = (domain.name, task.name)
            rows.append(
                Row(
                    *names,
                    first.name,
                    value,
                    count,
                    task.kind,
                    first.unit,
                    first.better,
                    True,
                    low,
                    high,
                )
            )
            rows += [
                Row(*names, m.name, value * 1.1, count, task.kind, m.unit, m.better) for m in others
            ]
    return Table(tuple(rows), split)


def records(test: Table, part: str, domains: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Return records whose curves fall to the table's headlines."""
    chance = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    mine = [row for row in test.headlines() if row.domain in domains]
    for step in range(20, STEPS + 1, 20):
        left = math.exp(-8 * step / STEPS)
        losses = {f"{r.domain}/{r.task}": 2.5 * left + 0.1 * chance.random() for r in mine}
        line = {"step": step, "part": part, "lr": 0.1, "loss": losses, "seconds": step / 10}
        found.append(line)
        if step % 40 == 0:
            val = {}
            for r in mine:
                error = as_error(r.kind, r.value)
                rest = (90 if r.unit == "%" else 3 * error) - error
                now = error + rest * left + 0.02 * error * chance.random()
                val[f"{r.domain}/{r.task}/{r.metric}"] = 100 - now if r.better == "higher" else now
            score = sum(val.values()) / len(val)
            found.append({"step": step, "part": part, "val": val, "score": score, "best": True})
    return found


def make_run(
    folder: Path,
    domains: Sequence[Domain],
    errors: Mapping[str, float],
    *,
    seed: int = 0,
    sharing: str = "deep",
    norm: str = "domain",
    images: int = 0,
    finished: bool = True,
    model: bool = True,
    paired: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a folder with everything that a finished run holds."""
    folder.mkdir(parents=True)
    lines = [f'name = "{folder.name}"', f"seed = {seed}", 'out = "somewhere/private"']
    lines += ["[trunk]", 'arch = "resnet20"', f'norm = "{norm}"', f'sharing = "{sharing}"']
    for domain in domains:
        lines += ["[[domains]]", f'name = "{domain.name}"', 'source = "folder:secret/place"']
    (folder / "recipe.toml").write_text("\n".join(lines) + "\n")
    environment = {"versions": {"torch": "2.x"}, "hardware": {"device": "cpu"}, "seed": seed}
    (folder / "environment.json").write_text(json.dumps(environment))
    found = outcomes(domains, errors, seed, images)
    test = table(found, domains)
    parts = [d.name for d in domains] if sharing == "none" else [""]
    every = [
        r for part in parts for r in records(test, part, [part] if part else list(errors), seed)
    ]
    text = "".join(json.dumps(record) + "\n" for record in every)
    (folder / "metrics.jsonl").write_text(text)
    if not finished:
        return folder
    if model:
        if sharing == "none":
            models = {d.name: network([d], seed=i, sharing="none") for i, d in enumerate(domains)}
        else:
            models = {"": network(list(domains), seed=seed, sharing=sharing, norm=norm)}
        save_models(models, folder)
    if paired:
        found.save(folder / "outcomes.safetensors")
    scores = {
        "format": 1,
        "seed": seed,
        "test": test.to_json(),
        "val": table(found, domains, "val").to_json(),
        "best": {part: {"step": STEPS - 40, "score": 1.0} for part in parts},
        "bad": {d.name: dict.fromkeys(SPLITS, 0) for d in domains},
        "splits": {
            d.name: {"how": d.index.how, **{s: len(d.splits[s]) for s in SPLITS}} for d in domains
        },
        **(extra or {}),
    }
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder
