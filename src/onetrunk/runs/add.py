"""A domain is added to a model that is in use: `ot.add`, and what `onetrunk add` does."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from onetrunk.config.add_recipe import (
    DEFAULT_ADAPTERS,
    AddRecipe,
    Few,
    base_from,
    merged_train,
    read_add_recipe,
    train_like,
)
from onetrunk.config.from_python import table_of
from onetrunk.config.train import LENGTHS, Train
from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.eval.table import Table
from onetrunk.nn.model_files import listed
from onetrunk.nn.pack import Pack
from onetrunk.nn.saving import load
from onetrunk.nn.universal import Universal
from onetrunk.runs import pack_store as shelf
from onetrunk.runs import proof
from onetrunk.runs.growth import handful, raise_domain, tell
from onetrunk.runs.open import reachable
from onetrunk.runs.scores import read_json
from onetrunk.store.run_folder import SCORES, RunFolder, shell
from onetrunk.train.device import choose_device
from onetrunk.train.fewshot.choose_method import FEW_BATCH, FEW_STEPS

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
    adapters: str = DEFAULT_ADAPTERS,
    rank: int | None = None,
    budget: float = 0.15,
    start: str = "auto",
    few: Few = "auto",
    decay: float | None = None,
    others: Sequence[Domain] = (),
    seed: int = 0,
    resume: bool = False,
    device: str | torch.device | None = None,
    train: Train | None = None,
) -> Grown:
    """Add `domain` to a model, or to that of a finished run's folder; nothing else moves.

    `adapters`: parallel, series, lora, norm, none, or auto, which tries them all within `budget`
    (a share of the trunk's bytes). `rank`: of low-rank adapters. `start`: whose slots the new one
    starts from. `few`: True for a handful of images, False for the ordinary way. `train`: its
    settings that are not given are, for a run's folder, those that the run was trained with. The
    model changes at the end and at once; `others` are its domains with their images, on which
    nothing is to change (of a run's folder its own).
    """
    grow = {"adapters": adapters, "rank": rank, "budget": float(budget), "start": start}
    document: dict[str, Any] = {
        "seed": seed,
        "add": {**grow, "few": few, "decay": decay},
        "train": {} if train is None else train.given(),
    }
    if not isinstance(model, Universal):
        return add_to_run(Path(model), domain, document, resume=resume, device=device)
    growth = complete(document, document["train"], domain, model)
    place = choose_device(device)
    if domain.name in model.domains:
        raise taken("the model", "RUN", domain, model.domains[domain.name].tasks, model.domains)
    with tempfile.TemporaryDirectory(prefix="onetrunk-") as folder:
        work = Path(folder) / "grow"
        known = {other.name: other for other in others}
        tell(domain)
        record, pack = raise_domain(
            model, domain, growth, work, "added", known, place, again="the same call", resume=False
        )
        model.add_pack(pack)
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
    """The same for a run's folder; `document`: seed, [add] and [train] as the user gave them."""
    name, place = domain.name, choose_device(device)
    again = again or command("add", run, domain)
    top = shelf.check_run(run)
    with RunFolder.hold(run, again) as held:
        work = run / shelf.GROWING / name
        if waits(work, domain):
            return published(held, name)
        model = load(run)
        if name in listed(top):
            raise taken(str(run), shell(run), domain, model.domains[name].tasks, model.domains)
        said = dict(document.get("train", {}))
        full = merged_train(said, train_like(run, len(model.domains)))
        like = {**document, "train": full}
        growth = complete(like, said, domain, model, work)
        tell(domain)
        raise_domain(
            model, domain, growth, work, "added", reachable(run), place, again=again, resume=resume
        )
        return published(held, name)


def command(verb: str, run: Path, domain: Domain) -> str:
    """What to type to go on."""
    return f"onetrunk {verb} {shell(run)} {domain.name} {source_of(domain)} --resume"


def source_of(domain: Domain) -> str:
    """As a command names it; an object of Python's has no such name."""
    return shell(domain.source) if isinstance(domain.source, str) else "SOURCE"


def waits(work: Path, domain: Domain) -> bool:
    """Whether it was finished, and a kill came before it was in use."""
    if not (work / SCORES).exists():
        return False
    there, here = read_add_recipe(work).domain.source, table_of(domain)["source"]
    if there != here:
        raise BadInput(
            f"{work} holds a finished {domain.name} of {there}, which is not in use yet",
            got=here,
            try_=f"the same with {shell(there)}, or remove {shell(work)}",
        )
    return True


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
) -> AddRecipe:
    """The growth with what is not said: its trunk, where paths start, the length for a handful.

    `said`: what of [train] the user said, which stays.
    """
    made = dict(document)
    made["add"] = {k: v for k, v in dict(made.get("add", {})).items() if v is not None}
    made["trunk"] = model.trunk.fingerprint()
    made["base"] = base_from(domain.base, work or Path())
    made["domains"] = [table_of(domain)]
    train = dict(made.get("train", {}))
    if handful(model, domain, made["add"].get("few", "auto")):
        if not any(key in said for key in LENGTHS):
            train = {k: v for k, v in train.items() if k not in LENGTHS}
            train["steps"] = FEW_STEPS
        steps = train.get("steps")
        train |= {"workers": 0} | ({"eval_every": steps} if isinstance(steps, int) else {})
        images = len(domain.train) + len(domain.val)
        train["batch"] = max(1, min(train.get("batch", FEW_BATCH), FEW_BATCH, images // 2))
    made["train"] = train
    return AddRecipe.of(made)


def taken(
    where: str, run: str, domain: Domain, known: Sequence[Task], names: Mapping[str, Any]
) -> Exception:
    """What to raise where the name is there already; `run`: as a command names it."""
    update = f"onetrunk update {run} {domain.name} {source_of(domain)}"
    if [(t.name, t.kind) for t in domain.tasks] == [(t.name, t.kind) for t in known] and [
        t.classes for t in domain.tasks
    ] != [t.classes for t in known]:
        return BadInput(
            f"{where} has a domain {domain.name} already, with other classes",
            got=f"{len(domain.tasks[0].classes)} classes, it has {len(known[0].classes)}",
            try_=update,
        )
    return BadInput(
        f"{where} has a domain of this name already",
        got=domain.name,
        available=names,
        try_=f"another name, or {update}",
    )
