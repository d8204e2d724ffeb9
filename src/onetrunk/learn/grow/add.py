"""A domain is added to a model that is in use: `ot.add`, and what `onetrunk add` does."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from onetrunk.data.domain import Domain
from onetrunk.data.splitting import SPLITS
from onetrunk.data.task import Task
from onetrunk.errors import wrong
from onetrunk.learn.described import table_of
from onetrunk.learn.device import choose_device
from onetrunk.learn.environment import check_data, environment
from onetrunk.learn.finish import OUTCOMES
from onetrunk.learn.fit import NotFinite
from onetrunk.learn.grow import few, ladder, proof, shelf, story
from onetrunk.learn.grow.places import reachable
from onetrunk.learn.grow.record import cost_of, read_json
from onetrunk.learn.grow.settings import (
    USUAL,
    Growth,
    base_from,
    settled,
    train_like,
)
from onetrunk.learn.grow.trial import Ground, Kind, bytes_of, size_of, with_record
from onetrunk.learn.stopping import Stopped
from onetrunk.learn.train import check_tasks
from onetrunk.learn.watch import find, make_watch
from onetrunk.measure.budget import budget as budget_of
from onetrunk.measure.evaluate import judge
from onetrunk.measure.scores import headline
from onetrunk.measure.table import Row, Table
from onetrunk.model.pack import Pack
from onetrunk.model.saved import listed, load
from onetrunk.model.universal import Universal
from onetrunk.progress import say
from onetrunk.recipe.train import LENGTHS
from onetrunk.store.run import SCORES, RunFolder, shell

Place = str | PathLike[str]


@dataclass(frozen=True)
class Grown:
    """A domain that was added or updated, and what is known of it."""

    name: str
    model: Universal  # with it
    scores: Mapping[str, Any]  # its record: tables, what was tried, the proof
    folder: Path | None = None  # of the run

    @property
    def table(self) -> Table:
        """Its scores on the test split."""
        return Table.from_json(self.scores["test"])

    @property
    def proof(self) -> proof.Proof:
        """The prints of every other domain, equal before and after."""
        return proof.Proof.from_json(self.scores["proof"])

    @property
    def pack(self) -> Pack:
        """All that it owns."""
        return self.model.pack(self.name)


def add(
    model: Universal | Place,
    domain: Domain,
    *,
    adapters: str = USUAL,
    rank: int | None = None,
    budget: float = 0.15,
    start: str = "auto",
    shots: str = "auto",
    decay: float | None = None,
    others: Sequence[Domain] = (),
    seed: int = 0,
    resume: bool = False,
    device: str | torch.device | None = None,
    **settings: Any,
) -> Grown:
    """Add `domain` to a model, or to that of a finished run's folder; nothing else moves.

    `adapters`: parallel, series, lora, norm, none, or auto, which tries them all within `budget`
    (a share of the trunk's bytes). `rank`: of low-rank adapters. `start`: whose slots the new one
    starts from. `shots`: "yes" for a handful of images, "no" for the ordinary way. `settings`: the
    keys of a recipe's [train]; of a run's folder by default those that it was trained with. The
    model changes at the end and at once; `others` are its domains with their images, on which
    nothing is to change (of a run's folder its own).
    """
    grow = {"adapters": adapters, "rank": rank, "budget": float(budget), "start": start}
    document: dict[str, Any] = {
        "seed": seed,
        "grow": {**grow, "few": shots, "decay": decay},
        "train": dict(settings),
    }
    if not isinstance(model, Universal):
        return add_to_run(Path(model), domain, document, resume=resume, device=device)
    growth = complete(document, document["train"], domain, model)
    place = choose_device(device)
    if domain.name in model.domains:
        raise taken("the model", domain, model.domains[domain.name].tasks, model.domains)
    with tempfile.TemporaryDirectory(prefix="onetrunk-") as folder:
        work = Path(folder) / "grow"
        known = {other.name: other for other in others}
        record, pack = raise_domain(
            model, domain, growth, work, "added", known, place, again="the same call", resume=False
        )
        pack.join(model)
    return Grown(domain.name, model, record)


def add_to_run(
    run: Path,
    domain: Domain,
    document: Mapping[str, Any],
    *,
    again: str | None = None,
    resume: bool = False,
    device: str | torch.device | None = None,
) -> Grown:
    """The same for a run's folder; `document`: seed, [grow] and [train] as the user said them."""
    name, place = domain.name, choose_device(device)
    again = again or f"onetrunk add {shell(run)} {name} {domain.source} --resume"
    top = shelf.check_run(run)
    with RunFolder.hold(run, again) as held:
        work = run / shelf.GROWING / name
        if (work / SCORES).exists():  # it was finished, and a kill came before it was in use
            return published(held, name)
        model = load(run)
        if name in listed(top):
            raise taken(str(run), domain, model.domains[name].tasks, model.domains)
        said = dict(document.get("train", {}))
        like = settled(document, train_like(run, len(model.domains)))
        growth = complete(like, said, domain, model, work)
        raise_domain(
            model, domain, growth, work, "added", reachable(run), place, again=again, resume=resume
        )
        return published(held, name)


def published(held: RunFolder, name: str) -> Grown:
    """What is finished in the folder `growing` is the run's from now on."""
    shelf.publish(held, name)
    record = read_json(held.path / shelf.GROWN / name / SCORES)
    return Grown(name, load(held.path), record, held.path)


def complete(
    document: Mapping[str, Any],
    said: Mapping[str, Any],
    domain: Domain,
    model: Universal,
    work: Path | None = None,
) -> Growth:
    """The growth with what is not said: its trunk, where paths start, the length for a handful.

    `said`: what of [train] the user said, which stays.
    """
    made = dict(document)
    made["grow"] = {k: v for k, v in dict(made.get("grow", {})).items() if v is not None}
    made["trunk"] = model.trunk.fingerprint()
    made["base"] = base_from(domain.base, work or Path())
    made["domains"] = [table_of(domain)]
    train = dict(made.get("train", {}))
    if handful(model, domain, str(made["grow"].get("few", "auto"))):
        if not any(key in said for key in LENGTHS):
            train = {k: v for k, v in train.items() if k not in LENGTHS}
            train["steps"] = few.STEPS
        steps = train.get("steps")
        train |= {"workers": 0} | ({"evaluate": steps} if isinstance(steps, int) else {})
        images = len(domain.train) + len(domain.val)
        train["batch"] = max(1, min(train.get("batch", few.BATCH), few.BATCH, images // 2))
    made["train"] = train
    return Growth.of(made)


def handful(model: Universal, domain: Domain, asked: str) -> bool:
    """Whether the few are learned as few; heads that domains share are never class means."""
    return model.trunk.sharing != "full" and few.is_few(domain, asked)


def taken(where: str, domain: Domain, known: Sequence[Task], names: Mapping[str, Any]) -> Exception:
    """What to raise where the name is there already."""
    update = f"onetrunk update {where} {domain.name} {domain.source}"
    if [(t.name, t.kind) for t in domain.tasks] == [(t.name, t.kind) for t in known] and [
        t.classes for t in domain.tasks
    ] != [t.classes for t in known]:
        return wrong(
            f"{where} has a domain {domain.name} already, with other classes",
            came=f"{len(domain.tasks[0].classes)} classes, it has {len(known[0].classes)}",
            next=update,
        )
    return wrong(
        f"{where} has a domain of this name already",
        came=domain.name,
        exists=names,
        next=f"another name, or {update}",
    )


# -- the work itself


def raise_domain(
    model: Universal,
    domain: Domain,
    growth: Growth,
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
    name, few_images = domain.name, handful(model, domain, growth.grow.few) and old is None
    check_tasks([domain], growth.train)
    if not few_images and not len(domain.val):
        raise wrong(
            f"{name}: no validation image to choose weights by",
            came=f"{len(domain.train)} for training",
            next="more images, or a column or folder that names the split val",
        )
    for logger in growth.train.loggers:
        find(logger)
    began = time.monotonic()
    with RunFolder.open(work, growth.to_toml(), resume=resume, again=again) as run:
        check_data(run, environment([domain], growth.seed, device))
        before = proof.take(model, others, name)
        watch = make_watch(growth.train.loggers, work)
        ground = Ground(model, domain, growth, run, watch, device, old, start)
        try:
            kind, tried, chosen, val = _choose(ground, few_images)
        except Stopped as stop:
            raise Stopped(stop.said, again) from None
        except NotFinite as error:
            run.write("failed.json", error.record)
            raise
        say(f"{name}: {chosen}")
        learned = Pack.open(ground.pack_path(kind))
        record, pack = _judged(ground, kind, learned, before, others, val, what, chosen)
        record |= {"tried": tried, "seconds": round(time.monotonic() - began, 3)}
        with run.writing("the pack"):
            pack.save(work / f"{name}.pack")
        run.finish(record)
        ground.tidy()
    return record, pack


def _choose(
    ground: Ground, few_images: bool
) -> tuple[Kind, list[dict[str, Any]], str, tuple[Row, ...] | None]:
    """What the domain is to own: as asked, by the ladder, or by folds of the few."""
    grow, trunk = ground.growth.grow, bytes_of(ground.model)
    auto = grow.adapters == "auto"
    if few_images:
        kinds = ladder.rungs(ground) if auto else [Kind(grow.adapters, grow.rank)]
        way, ways, why = few.choose(ground, kinds)
        return way.kind, [each.to_json() for each in ways], why, _fold_rows(ground.domain, way)
    if auto:
        best, trials, why = ladder.climb(ground)
    else:
        best = ground.trial(Kind(grow.adapters, grow.rank))
        trials, why = [best], f"{best.kind.label}, as asked"
    return best.kind, [trial.to_json(trunk) for trial in trials], why, None


def _fold_rows(domain: Domain, way: few.Way) -> tuple[Row, ...]:
    """Validation was learned from, so its score is that of the images held out in folds."""
    if len(domain.tasks) > 1 or way.error != way.error:
        return ()
    (task,) = domain.tasks
    metric = headline(task.kind)
    held = sum(len(fold.val) for fold in few.folds(domain, 0))
    return (
        Row(domain.name, task.name, metric.name, way.error, held, task.kind, metric.unit,
            metric.better, True),
    )  # fmt: skip


def _judged(
    ground: Ground,
    kind: Kind,
    learned: Pack,
    before: Mapping[str, proof.Print],
    others: Mapping[str, Domain],
    val: tuple[Row, ...] | None,
    what: str,
    chosen: str,
) -> tuple[dict[str, Any], Pack]:
    """The pack in the model, as it will be used: the proof and the scores; then out again."""
    model, domain, growth = ground.model, ground.domain, ground.growth
    name, old = domain.name, ground.old
    if old is not None:
        model.remove(name)
    try:
        learned.join(model)
        shown = proof.compare(before, proof.take(model, others, name), name)
        say(f"{name}: {shown.said}")
        judged = {
            split: judge(model, [domain], split, device=ground.device) for split in ("val", "test")
        }
        tables = {split: found.table() for split, found in judged.items()}
        if val is not None:
            tables["val"] = Table(val, "val")
        cost = cost_of(budget_of(only(model, name)), name)
    finally:
        if name in model.domains:
            model.remove(name)
        if old is not None:
            old.join(model)
    with ground.run.writing(OUTCOMES):
        judged["test"].outcomes().save(ground.run.path / OUTCOMES)
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
    trunk = bytes_of(model)
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
            "bytes": size_of(pack),
            "share": size_of(pack) / trunk,
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
