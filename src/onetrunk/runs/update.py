"""Update a domain of a run to other classes or images; only its pack changes.

Training starts from the present pack. Classes that remain keep their rows of the head, matched by
name. Images that the domain was trained on keep their split. The previous version is kept in the
history, and `undo` puts it back into use. `relabel` renames and drops classes without training.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from onetrunk.config import Train
from onetrunk.config.add_recipe import Few
from onetrunk.config.from_python import check_settings
from onetrunk.data.domain import Domain
from onetrunk.data.domain_list import list_domains
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.pack import Pack
from onetrunk.nn.saving import load
from onetrunk.objects import Trust, trusting
from onetrunk.progress import say
from onetrunk.runs import pack_history, pack_store
from onetrunk.runs.change_domain import (
    DomainResult,
    Prepared,
    command_for,
    make_recipe,
    train_into_run,
)
from onetrunk.runs.inherit import settings_before
from onetrunk.runs.open import Run
from onetrunk.runs.train_domain import domain_cost, pack_sizes
from onetrunk.runs.unchanged import check_unchanged, fingerprints
from onetrunk.store.run_folder import RunFolder, shell
from onetrunk.train.new_domain.previous_pack import (
    check_unshared_heads,
    owned_adapters,
    rename_classes,
    select_classes,
)
from onetrunk.train.new_domain.trials import with_record


def update(
    run: str | os.PathLike[str],
    domain: Domain,
    *,
    rename: Mapping[str, str] | None = None,
    adapters: str | None = None,
    rank: int | None = None,
    budget: float | None = None,
    start: str | None = None,
    few: Few | None = None,
    decay: float | None = None,
    seed: int = 0,
    resume: bool = False,
    device: str | torch.device | None = None,
    command: str | None = None,
    train: Train | None = None,
    trust: Trust = (),
) -> DomainResult:
    """Train a domain of a run on its present classes and images, starting from its pack.

    Args:
        run: The folder of a finished run.
        domain: The domain, with its present classes and images; the run has one of this name. What
            it does not set stays as it was, the numbers of its normalization included.
        rename: Renamed classes, from old to new name.
        adapters: What the domain owns, as in `onetrunk.add`; None: the same as before.
        rank: The rank of low-rank adapters; None: the same as before.
        budget: The largest size of a pack for "auto", as a share of the trunk's bytes.
        start: Has no effect, as an update starts from the pack.
        few: Whether to use few-shot methods; None: no.
        decay: The factor on the weight decay; None: by adapters and number of images.
        seed: The seed of all random numbers.
        resume: Continue an interrupted update.
        device: "cpu", "cuda", "cuda:1" or "mps"; None: a GPU if there is one.
        command: The command that continues, for messages.
        train: Settings of the training; those that are not set are those of the run.
        trust: Modules whose code the run may name.
    """
    check_settings(train, Train)
    (domain,) = list_domains(domain)
    folder, name = Path(run), domain.name
    known = Run(folder).kept_splits(name)
    domain = domain.keeping(
        replace(known, renamed={new: old for old, new in (rename or {}).items()})
    )
    settings = {} if train is None else train.given()
    given = {
        "adapters": adapters,
        "rank": rank,
        "budget": budget,
        "start": start,
        "few": few,
        "decay": decay,
    }

    def prepare(run: Run, work: Path) -> Prepared:
        _check_domain(run, name)
        check_unshared_heads(run.model, name)
        old = Pack.open(run.pack_path(name))
        begin = rename_classes(old, rename or {})
        now = settings_before(
            domain, old.card, run.domain_settings.get(name), run.model.trunk.normalization
        )
        say(f"{name}: {_describe_changes(begin.card.tasks, now.tasks)}")
        owned = {"adapters": owned_adapters(old), "few": False, "rank": old.card.rank}
        owned |= {key: value for key, value in given.items() if value is not None}
        version = pack_store.version_in_use(folder, name) + 1
        recipe = make_recipe(
            run.model, now, seed, owned, settings, run=run, work=work, version=version
        )
        return Prepared(run.model, now, recipe, old, begin)

    with trusting(trust):
        return train_into_run(
            folder,
            domain,
            pack_history.UPDATED,
            prepare,
            command=command or command_for("update", folder, domain),
            resume=resume,
            device=device,
        )


def _check_domain(run: Run, name: str) -> None:
    """Raise BadInput if the run does not have the domain."""
    if name not in run.names:
        raise BadInput(
            f"{run.folder} has no such domain",
            got=name,
            available=run.names,
            try_=f"onetrunk add {shell(run.folder)} {name} SOURCE",
        )
    run.check_shares_trunk(name)


def _describe_changes(before: Sequence[Task], now: Sequence[Task]) -> str:
    """Describe the kept, new and dropped classes in one line."""
    old = {task.name: task for task in before}
    parts = []
    for task in now:
        if task.name not in old:
            parts.append(f"{task.name} is new")
            continue
        was = old[task.name]
        kept = len(set(task.classes) & set(was.classes))
        words = [f"{kept} classes keep their rows"] if kept else []
        words += task.class_differences(was)
        if words:
            parts.append(f"{task.name}: {'; '.join(words)}")
    return "; ".join(parts) or "the same tasks"


def relabel(
    run: str | os.PathLike[str],
    name: str,
    *,
    rename: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    trust: Trust = (),
) -> DomainResult:
    """Rename or drop classes of a domain without training; all other rows stay equal to the bit.

    Args:
        run: The folder of a finished run.
        name: The domain.
        rename: Renamed classes, from old to new name.
        drop: Classes to drop.
        trust: Modules whose code the run may name.
    """
    folder = Path(run)
    Run(folder).check_shared_trunk()
    command = f"onetrunk update {shell(folder)} {name}"
    with trusting(trust), RunFolder.hold(folder, command) as held:
        opened = Run(folder)
        _check_domain(opened, name)
        model, others = opened.model, opened.readable_domains
        check_unshared_heads(model, name)
        old = Pack.open(opened.pack_path(name))
        new = _without(rename_classes(old, rename or {}), drop)
        before = fingerprints(model, others, name)
        model.remove(name)
        event = {
            "event": pack_history.RELABELED,
            "date": pack_history.now(),
            "renamed": dict(rename or {}),
            "dropped": list(drop),
        }
        version = pack_store.version_in_use(folder, name) + 1
        history = pack_history.extended(old.card, event)
        provenance = {**new.card.provenance, "version": version, "history": history}
        new = with_record(new, provenance, new.card.scores if not drop else {})
        model.add_pack(new)
        unchanged = check_unchanged(before, fingerprints(model, others, name), name)
        say(f"{name}: {unchanged}")
        record = opened.record(name)
        record["added"] = {
            **record.get("added", {}),
            **pack_sizes(model, new),
            "event": pack_history.RELABELED,
            "date": event["date"],
            "version": version,
        }
        record |= {"cost": domain_cost(model, name), "unchanged": unchanged.to_json()}
        if drop:
            for split in ("val", "test"):
                record.pop(split, None)
        pack_store.replace_pack(held, name, new, record, keep_outcomes=not drop)
        return DomainResult(name, load(folder), record, folder)


def _without(pack: Pack, drop: Sequence[str]) -> Pack:
    """Return the pack without these classes."""
    known = {c for task in pack.card.tasks for c in task.classes}
    for c in drop:
        if c not in known:
            raise BadInput(f"{pack.card.name} has no such class", got=c, available=sorted(known))
    tasks = []
    for task in pack.card.tasks:
        left = tuple(c for c in task.classes if c not in drop)
        if task.classes and not left:
            raise BadInput(
                f"{pack.card.name}/{task.name}: expected at least one remaining class",
                got=", ".join(drop),
            )
        tasks.append(replace(task, classes=left))
    return select_classes(pack, tasks)


def undo(run: str | os.PathLike[str], name: str, *, trust: Trust = ()) -> DomainResult:
    """Put the version before the last update back into use, equal to the bit.

    The present version is kept in the history as `undone-N`.

    Args:
        run: The folder of a finished run.
        name: The domain.
        trust: Modules whose code the run may name.
    """
    folder = Path(run)
    Run(folder).check_shared_trunk()
    command = f"onetrunk update {shell(folder)} {name} --undo"
    with trusting(trust), RunFolder.hold(folder, command) as held:
        opened = Run(folder)
        _check_domain(opened, name)
        versions = opened.versions(name)
        if not versions:
            raise BadInput(
                f"{name} was never updated: it has no earlier version",
                try_=f"onetrunk info {shell(folder)}",
            )
        others = opened.readable_domains
        before = fingerprints(opened.model, others, name)
        pack_store.restore_version(held, name, versions[-1])
        now = Run(folder)
        unchanged = check_unchanged(before, fingerprints(now.model, others, name), name)
        say(f"{name}: {unchanged}")
        record = now.record(name)
        # the record of a domain of the training has no sizes
        sizes = pack_sizes(now.model, now.model.pack(name))
        record["added"] = {**sizes, **record.get("added", {})}
        record["unchanged"] = unchanged.to_json()
        return DomainResult(name, now.model, record, folder)
