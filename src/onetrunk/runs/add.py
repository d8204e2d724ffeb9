"""Add a domain to a model or a run: trained on images (`ot.add`), or imported as a pack."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from onetrunk.config import Train
from onetrunk.config.add_recipe import Few
from onetrunk.config.from_python import check_settings
from onetrunk.data.domain import Domain
from onetrunk.data.domain_list import list_domains
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.pack import Pack
from onetrunk.nn.universal import Universal
from onetrunk.objects import Trust, modules_of, trusting
from onetrunk.progress import say
from onetrunk.runs import pack_history, pack_store
from onetrunk.runs.change_domain import (
    DomainResult,
    Prepared,
    command_for,
    make_recipe,
    source_text,
    train_into_run,
)
from onetrunk.runs.inherit import settings_like
from onetrunk.runs.open import HISTORY, Run, read_json
from onetrunk.runs.train_domain import domain_cost, is_few, pack_sizes, say_notes, train_domain
from onetrunk.runs.unchanged import Unchanged, check_unchanged, fingerprints
from onetrunk.store.atomic import make_folder, remove_folder, write_atomic
from onetrunk.store.run_folder import LOCK, RECIPE, SCORES, RunFolder, shell
from onetrunk.store.strict_json import strict_json
from onetrunk.train.device import choose_device

PREFIX = "pack:"  # of a source that is a pack file


def add(
    model: Universal | str | os.PathLike[str],
    domain: Domain,
    *,
    adapters: str | None = None,
    rank: int | None = None,
    budget: float = 0.15,
    start: str = "auto",
    few: Few = "auto",
    decay: float | None = None,
    others: Sequence[Domain] = (),
    seed: int = 0,
    resume: bool = False,
    device: str | torch.device | None = None,
    command: str | None = None,
    train: Train | None = None,
    trust: Trust = (),
) -> DomainResult:
    """Add a domain to a model or a finished run; all other domains stay unchanged, to the bit.

    Args:
        model: A network in memory, or the folder of a finished run.
        domain: The new domain. What it does not set of size, fit, margin, fill, normalization and
            augmentation is that of the other domains.
        adapters: "parallel", "series", "lora", "norm", "none" (head only), or "auto", which selects
            those with the lowest validation error within `budget`. None: "parallel", and "auto" for
            few images.
        rank: The rank of low-rank adapters.
        budget: The largest size of a pack for "auto", as a share of the trunk's bytes.
        start: What the new slots are copied from: "auto", "trunk", or the name of a domain.
        few: Whether to use few-shot methods, evaluated on folds instead of a validation split;
            "auto" does so below 50 images per class. With adapters "auto", class means and linear
            heads are candidates as well.
        decay: The factor on the weight decay; None: by adapters and number of images.
        others: For a network in memory, its domains, whose outputs are checked on their own images;
            those of a run are read from its folder.
        seed: The seed of all random numbers.
        resume: Continue an interrupted addition to a run.
        device: "cpu", "cuda", "cuda:1" or "mps"; None: a GPU if there is one.
        command: The command that continues, for messages.
        train: Settings of the training; those that are not set are those of the run.
        trust: Modules whose code the run may name.
    """
    owned = {
        "adapters": adapters,
        "rank": rank,
        "budget": float(budget),
        "start": start,
        "few": few,
        "decay": decay,
    }
    check_settings(train, Train)
    (domain,) = list_domains(domain)
    given = {} if train is None else train.given()
    if isinstance(model, Universal):
        return _add_to_model(model, domain, owned, given, others, seed, device)
    folder = Path(model)

    def prepare(run: Run, work: Path) -> Prepared:
        if domain.name in run.names:
            raise _name_taken(str(folder), shell(folder), domain, run.model)
        new = settings_like(domain, run.model, run.domain_settings)
        recipe = make_recipe(run.model, new, seed, owned, given, run=run, work=work)
        return Prepared(run.model, new, recipe)

    with trusting(trust):
        return train_into_run(
            folder,
            domain,
            pack_history.ADDED,
            prepare,
            command=command or command_for("add", folder, domain),
            resume=resume,
            device=device,
        )


def _add_to_model(
    model: Universal,
    domain: Domain,
    owned: Mapping[str, Any],
    train: Mapping[str, Any],
    others: Sequence[Domain],
    seed: int,
    device: str | torch.device | None,
) -> DomainResult:
    """Add a domain to a network in memory."""
    place = choose_device(device)
    if domain.name in model.domains:
        raise _name_taken("the model", "RUN", domain, model)
    known = {other.name: other for other in others}
    domain = settings_like(domain, model, {n: other.settings for n, other in known.items()})
    recipe = make_recipe(model, domain, seed, owned, train)
    say_notes(domain, is_few(model, domain, recipe.add.few))
    own = modules_of([*model.objects, *domain.settings.objects.values()])
    with trusting(own), tempfile.TemporaryDirectory(prefix="onetrunk-") as folder:
        record, pack = train_domain(
            model, domain, recipe, Path(folder) / "add", pack_history.ADDED, known, place,
            command="the same call", resume=False,
        )  # fmt: skip
        model.add_pack(pack)
    return DomainResult(domain.name, model, record)


def _name_taken(where: str, run: str, domain: Domain, model: Universal) -> BadInput:
    """Return the error for a name that is in use; `run` is the run as typed in a command."""
    tasks = model.domains[domain.name].tasks
    update = f"onetrunk update {run} {domain.name} {source_text(domain)}"
    if _kinds(domain.tasks) == _kinds(tasks) and _classes(domain.tasks) != _classes(tasks):
        return BadInput(
            f"{where} already has a domain {domain.name}, with other classes",
            got="; ".join(
                difference
                for task, old in zip(domain.tasks, tasks, strict=True)
                for difference in task.class_differences(old) or [f"{task.name}: another order"]
            ),
            try_=update,
        )
    return BadInput(
        f"{where} already has a domain of this name",
        got=domain.name,
        available=model.domains,
        try_=f"another name, or {update}",
    )


def _kinds(tasks: Sequence[Task]) -> list[tuple[str, str]]:
    return [(task.name, task.kind) for task in tasks]


def _classes(tasks: Sequence[Task]) -> list[tuple[str, ...]]:
    return [task.classes for task in tasks]


def import_pack(
    run: str | os.PathLike[str], name: str, file: str | os.PathLike[str], *, trust: Trust = ()
) -> DomainResult:
    """Import a pack into a run: from another run with the same trunk, or one that was removed here.

    The file is copied byte for byte, unless the domain gets another name. The record and history of
    a pack that was removed from this run are restored.

    Args:
        run: The folder of a finished run.
        name: The domain's name in this run.
        file: The pack file.
        trust: Modules whose code the run and the pack may name.
    """
    folder, file = Path(run), Path(file)
    Run(folder).check_shared_trunk()
    command = f"onetrunk add {shell(folder)} {name} {PREFIX}{shell(file)}"
    with trusting(trust), RunFolder.hold(folder, command) as held:
        opened = Run(folder)
        pack = Pack.open(file)
        if name in opened.names:
            raise BadInput(
                f"{folder} already has a domain of this name",
                got=name,
                available=opened.names,
                try_=f"another name, or onetrunk remove {shell(folder)} {name}",
            )
        data: bytes | None = file.read_bytes()
        home: Path | None = file.resolve().parent  # holds the record, if the pack was removed here
        if home is not None and home.parent != (folder / pack_store.REMOVED).resolve():
            home = None
        if pack.card.name != name:
            pack, data, home = replace(pack, card=replace(pack.card, name=name)), None, None
        model, others = opened.model, opened.readable_domains
        before = fingerprints(model, others, name)
        model.add_pack(pack)
        unchanged = check_unchanged(before, fingerprints(model, others, name), name)
        say(f"{name}: {unchanged}")
        stored = {} if home is None else read_json(home / SCORES)
        trained_here = home is not None and not (home / SCORES).is_file()
        record = _imported_record(model, pack, stored, unchanged, file)
        aside = folder / pack_store.ADDING / f"{name}.pack"

        def fill(part: Path) -> None:
            if home is not None and (home / RECIPE).is_file():
                for path in home.iterdir():
                    if path.is_file() and path.suffix != ".pack" and path.name != LOCK:
                        (part / path.name).write_bytes(path.read_bytes())
            if not trained_here:  # otherwise its record is in the scores of the run
                write_atomic(part / SCORES, strict_json(record, indent=2) + "\n")
            if data is None:
                pack.save(part / f"{name}.pack")
            else:
                write_atomic(part / f"{name}.pack", data)

        with held.writing(f"the pack of {name}"):
            remove_folder(aside)
            pack_store.make_complete(aside, fill)
        pack_store.restore(held, name, aside)
        with held.writing(f"the history of {name}"):
            remove_folder(aside)
            if home is not None and (home / HISTORY).is_dir():
                make_folder(folder / HISTORY)
                os.rename(home / HISTORY, folder / HISTORY / name)
    return DomainResult(name, model.eval(), record, folder)


def _imported_record(
    model: Universal, pack: Pack, stored: Mapping[str, Any], unchanged: Unchanged, file: Path
) -> dict[str, Any]:
    """Return the record of an imported pack: the stored one, or what its header contains."""
    name = pack.card.name
    added = {
        **pack_sizes(model, pack),
        "version": pack.card.provenance.get("version", 1),
        **stored.get("added", {}),
        "event": pack_history.IMPORTED,
        "date": pack_history.now(),
        "from": file.name,
    }
    cost = stored.get("cost") or domain_cost(model, name)
    known = {"format": 1, **stored, "domain": name}
    return {**known, "added": added, "cost": cost, "unchanged": unchanged.to_json()}
