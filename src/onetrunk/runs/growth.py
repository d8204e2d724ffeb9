"""The work: a new domain learned aside, proven to move nothing, evaluated; then it is a pack."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from onetrunk.config.add_recipe import AddRecipe, Few, card_adapters
from onetrunk.data.domain import Domain
from onetrunk.data.splitting import SPLITS
from onetrunk.errors import BadInput
from onetrunk.eval.budget import budget
from onetrunk.eval.evaluate import evaluate_split
from onetrunk.eval.metrics import headline
from onetrunk.eval.table import Row, Table
from onetrunk.nn.card import Card
from onetrunk.nn.pack import Pack
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.runs import history as story
from onetrunk.runs import proof
from onetrunk.runs.environment import check_data, environment
from onetrunk.runs.finish import OUTCOMES
from onetrunk.runs.scores import cost_of
from onetrunk.runs.train import check_labels, check_tasks
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.fewshot.choose_method import Method, choose_method
from onetrunk.train.fewshot.folds import has_few_images, make_folds
from onetrunk.train.interrupt import Stopped
from onetrunk.train.learner import NotFinite
from onetrunk.train.loggers import load_logger, make_logger
from onetrunk.train.new_domain.adapter_search import candidates, search_adapters
from onetrunk.train.new_domain.initial_slots import check_start
from onetrunk.train.new_domain.scratch_model import check_own_norms, make_scratch_model
from onetrunk.train.new_domain.trials import (
    AdapterKind,
    TrialRunner,
    pack_bytes,
    trunk_bytes,
    with_record,
)


def raise_domain(
    model: Universal,
    domain: Domain,
    growth: AddRecipe,
    work: Path,
    what: str,
    others: Mapping[str, Domain],
    device: torch.device,
    *,
    again: str,
    resume: bool,
    old: Pack | None = None,
    start: Pack | None = None,
) -> tuple[dict[str, Any], Pack]:
    """Learn the domain into the folder `work`: its pack and its record. The model stays as it is.

    Of an update, `old` is the pack in use, and `start` what its successor starts from.
    """
    name, few_images = domain.name, handful(model, domain, growth.add.few) and old is None
    check_tasks([domain], growth.train)
    check_labels([domain], {})
    own = growth.add.adapters
    if ":" in own and own != model.trunk.adapters:  # no pack of them would be let in
        raise BadInput(
            "adapters of one's own are those that the trunk was made with",
            got=own,
            available=[model.trunk.adapters],
            try_=f"a run with trunk.adapters = {own!r}",
        )
    if not few_images and not len(domain.val):
        raise BadInput(
            f"{name}: no validation image to choose weights by",
            got=f"{len(domain.train)} for training",
            try_="more images, or a column or folder that names the split val",
        )
    for spec in growth.train.loggers:
        load_logger(spec)
    check_start(model, name, growth.add.start)
    if own != "auto":
        card = Card.of(domain, card_adapters(own), growth.add.rank)
        check_own_norms(make_scratch_model(model, card, growth.seed), name, own)
    began = time.monotonic()
    with RunFolder.open(work, growth.to_toml(), resume=resume, command=again) as run:
        check_data(run, environment([domain], growth.seed, device))
        before = proof.take(model, others, name)
        logger = make_logger(growth.train.loggers, work)
        runner = TrialRunner(model, domain, growth, run, logger, device, old, start)
        try:
            kind, tried, chosen, val = _choose(runner, few_images)
        except Stopped as stop:
            raise Stopped(stop.expected, try_=again) from None
        except NotFinite as error:
            run.write("failed.json", error.record)
            raise
        say(f"{name}: {chosen}")
        learned = Pack.open(runner.pack_path(kind))
        record, pack = _evaluated(runner, kind, learned, before, others, val, what, chosen)
        record |= {"tried": tried, "seconds": round(time.monotonic() - began, 3)}
        with run.writing("the pack"):
            pack.save(work / f"{name}.pack")
        run.finish(record)
        runner.clean_up()
    return record, pack


def _choose(
    runner: TrialRunner, few_images: bool
) -> tuple[AdapterKind, list[dict[str, Any]], str, tuple[Row, ...] | None]:
    """What the domain is to own: as asked, by the ladder, or by folds of the few."""
    grow, trunk = runner.recipe.add, trunk_bytes(runner.model)
    auto = grow.adapters == "auto"
    if few_images:
        kinds = candidates(runner) if auto else [AdapterKind(grow.adapters, grow.rank)]
        way, ways, why = choose_method(runner, kinds)
        return way.kind, [each.to_json() for each in ways], why, _fold_rows(runner.domain, way)
    if auto:
        best, trials, why = search_adapters(runner)
    else:
        best = runner.trial(AdapterKind(grow.adapters, grow.rank))
        trials, why = [best], f"{best.kind.label}, as asked"
    return best.kind, [trial.to_json(trunk) for trial in trials], why, None


def _fold_rows(domain: Domain, way: Method) -> tuple[Row, ...]:
    """Validation was learned from, so its score is that of the images held out in folds."""
    if len(domain.tasks) > 1 or way.error is None:
        return ()
    (task,) = domain.tasks
    metric = headline(task.kind)
    held = sum(len(fold.val) for fold in make_folds(domain, 0))
    return (
        Row(domain.name, task.name, metric.name, way.error, held, task.kind, metric.unit,
            metric.better, True),
    )  # fmt: skip


def _evaluated(
    runner: TrialRunner,
    kind: AdapterKind,
    learned: Pack,
    before: Mapping[str, proof.Print],
    others: Mapping[str, Domain],
    val: tuple[Row, ...] | None,
    what: str,
    chosen: str,
) -> tuple[dict[str, Any], Pack]:
    """The pack in the model, as it will be used: the proof and the scores; then out again."""
    model, domain, growth = runner.model, runner.domain, runner.recipe
    name, old = domain.name, runner.old
    if old is not None:
        model.remove(name)
    try:
        model.add_pack(learned)
        shown = proof.compare(before, proof.take(model, others, name), name)
        say(f"{name}: {shown.said}")
        evaluated = {
            split: evaluate_split(model, [domain], split, device=runner.device)
            for split in ("val", "test")
        }
        tables = {split: found.table() for split, found in evaluated.items()}
        if val is not None:
            tables["val"] = Table(val, "val")
        cost = cost_of(budget(only(model, name)), name)
    finally:
        if name in model.domains:
            model.remove(name)
        if old is not None:
            model.add_pack(old)
    with runner.run.writing(OUTCOMES):
        evaluated["test"].outcomes().save(runner.run.path / OUTCOMES)
    scores = {
        f"{split}/{row.task}/{row.metric}": row.value
        for split, table in tables.items()
        for row in table.rows
    }
    event = story.entry(what, domain, growth, chosen, scores)
    provenance = {
        "seed": growth.seed,
        "batch": growth.domain.batch or growth.train.batch,
        "grown": kind.name,
        "version": growth.version,
        "history": story.told([*(story.history_of(old.card) if old else []), event]),
    }
    pack = with_record(learned, provenance, scores)
    index = domain.index
    trunk = trunk_bytes(model)
    record = {
        "format": 1,
        "finished": event["date"],
        "domain": name,
        "val": tables["val"].to_json(),
        "test": tables["test"].to_json(),
        "splits": {"how": index.how, **{s: len(domain.splits[s]) for s in SPLITS}},
        "bad": {s: len(domain.bad(s)) for s in SPLITS},
        "grown": {
            "what": what,
            "date": event["date"],
            "seed": growth.seed,
            "version": growth.version,
            "adapters": pack.card.adapters,
            "chosen": chosen,
            "bytes": pack_bytes(pack),
            "share": pack_bytes(pack) / trunk,
        },
        "cost": cost,
        "proof": shown.to_json(),
    }
    return record, pack


def only(model: Universal, name: str) -> Universal:
    """A view of the model in which only this domain is counted."""
    view = copy.copy(model)
    view.domains = {name: model.domains[name]}
    return view


def tell(domain: Domain) -> None:
    """What is worth knowing of its images, before anything is learned."""
    for line in domain.notes():
        say(f"note: {line}")


def handful(model: Universal, domain: Domain, asked: Few) -> bool:
    """Whether the few are learned as few; heads that domains share are never class means."""
    return model.trunk.sharing != "full" and has_few_images(domain, asked)
