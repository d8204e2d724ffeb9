"""Frozen: the trunk stays as it is and only heads learn, the cheapest baseline a user would pick.

Heads on pooled features are linear, so they are solved on features that are computed once
(features.py, linear.py): no augmentation, each domain through its own size and normalization. Of a grid
of L2 strengths λ the one with the lowest headline error on validation is kept, the stronger of
equals (Kornblith et al. 2019 evaluate trunks so). Decoders of dense tasks learn by the ordinary loop,
from images through the frozen trunk in evaluation mode.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import evaluate
from onetrunk.eval.evaluation import TaskResult
from onetrunk.eval.table import Row, Table, number, spaced
from onetrunk.nn.heads import Embed, Numbers, Pooled
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.store.run_folder import METRICS, RunFolder
from onetrunk.train.device import deterministic
from onetrunk.train.features import FOLDER, features_of
from onetrunk.train.interrupt import Stop, stoppable, stopped
from onetrunk.train.loggers import Watch
from onetrunk.train.loop import fit
from onetrunk.train.selection import Selection
from onetrunk.train.solve_heads import Head, keep, kept


def fit_heads(
    model: Universal,
    domains: Sequence[Domain],
    train: Train,
    run: RunFolder,
    watch: Watch,
    *,
    part: str = "",
    device: torch.device,
    seed: int = 0,
) -> Selection:
    """As `fit`, but only heads learn. Goes on from `run`."""
    check_heads(model)
    model.to(device)
    written = _logged(run)
    rows: list[Row] = []
    with stoppable() as stop, deterministic(train.deterministic, device):
        for domain in domains:
            rows += _linear(model, domain, train, run, stop, part, seed, written)
    dense = [domain for domain in domains if any(task.dense for task in domain.tasks)]
    selection, step = Selection(), 0
    if dense:
        names = ", ".join(domain.name for domain in dense)
        say(f"decoders on the frozen trunk learn from images: {names}")
        with decoders_learn(model, dense):
            step = fit(model, dense, train, run, watch, part=part, device=device, seed=seed).step
        rows = list(evaluate(model, domains, "val", intervals=False).rows)
    selection.see(step, Table(tuple(rows), "val"))
    return selection


def check_heads(model: Universal) -> None:
    """Only heads whose optimum is known: of one domain, and onetrunk's own."""
    for name, card in model.domains.items():
        for task in card.tasks:
            head = model.heads_of(name).head(task.name)
            if not task.dense and type(head) not in (Pooled, Numbers, Embed):
                shared = model.trunk.sharing == "full"
                raise BadInput(
                    f"train.frozen: the head of {name}/{task.name} is solved as a linear one",
                    got="one that domains share" if shared else type(head).__name__,
                    try_="sharing = 'deep'" if shared else "train.frozen = false",
                )


@contextmanager
def decoders_learn(model: Universal, domains: Sequence[Domain]) -> Iterator[None]:
    """Only what these domains' dense tasks own learns; afterwards whatever did before."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(False)
    for domain in domains:
        heads = model.heads_of(domain.name)
        own = [heads.head(task.name) for task in domain.tasks if task.dense]
        for module in [*own, *([heads.decoder] if heads.decoder is not None else [])]:
            module.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, learns in before:
            parameter.requires_grad_(learns)


def _linear(
    model: Universal,
    domain: Domain,
    train: Train,
    run: RunFolder,
    stop: Stop,
    part: str,
    seed: int,
    written: set[str],
) -> list[Row]:
    """Solve a domain's linear heads; their validation scores."""
    card = model.domains[domain.name]
    tasks = [task for task in card.tasks if not task.dense]
    if not tasks:
        return []
    learned = features_of(model, domain, "train", run, stop)
    evaluated = features_of(model, domain, "val", run, stop)
    spent = learned.seconds + evaluated.seconds
    rows: list[Row] = []
    strengths: dict[str, float] = {}
    for task in tasks:
        unit = f"{domain.name}/{task.name}"
        head = Head(model.heads_of(domain.name).head(task.name), task, domain, evaluated)
        path = run.path / FOLDER / domain.name / f"{task.name}.safetensors"
        chosen = kept(path, learned.digest)
        if chosen is None:
            chosen = head.learn(learned, train, seed, stop, run.path)
            keep(chosen, path, learned.digest, run)
        head.take(chosen.solved)
        l2 = strengths[task.name] = chosen.solved.l2
        mine = TaskResult(
            domain.name, task, domain.val, head.run_evaluation(), evaluated.places
        ).rows(False)
        rows += mine
        heads = [row for row in mine if row.headline]
        if unit not in written:
            record = {
                "step": 0,
                "part": part,
                "frozen": unit,
                "l2": l2,
                "grid": [[each, None if math.isnan(e) else e] for each, e in chosen.grid],
                "gradient": chosen.solved.gradient,
                "val": {f"{unit}/{row.metric}": row.value for row in heads},
                "seconds": round(spent + chosen.seconds, 3),
            }
            run.log(record)
        if stop.asked:
            raise stopped(f"after the head of {unit}", run.path)
        spent = 0.0
        shown = [f"{row.metric} {number(row.value, row.unit)}{spaced(row.unit)}" for row in heads]
        say(f"{unit}: L2 {l2:g}; validation {', '.join(shown) or 'has no label: the usual L2'}")
    provenance = {**card.provenance, "frozen": True, "l2": strengths}
    model.domains[domain.name] = card.with_record(provenance, card.scores)
    return rows


def _logged(run: RunFolder) -> set[str]:
    """The units whose heads metrics.jsonl tells of already."""
    try:
        lines = (run.path / METRICS).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return set()
    return {unit for line in lines if (unit := json.loads(line).get("frozen"))}
