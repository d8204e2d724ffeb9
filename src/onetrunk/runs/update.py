"""A domain is updated: classes come, go or are renamed, images come; only its pack moves.

Surviving classes keep their head rows, matched by name, and everything else of the pack goes on
from where it was. The version before is kept in the run's history until `undo` brings it back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from onetrunk.config.add_recipe import merged_train, train_like
from onetrunk.config.train import Train
from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.eval.budget import budget
from onetrunk.nn.adapters import NO_ADAPTERS
from onetrunk.nn.model_files import listed
from onetrunk.nn.pack import Pack
from onetrunk.nn.saving import load
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.runs import history as story
from onetrunk.runs import pack_store as shelf
from onetrunk.runs import proof
from onetrunk.runs.add import Grown, command, complete, published, waits
from onetrunk.runs.growth import only, raise_domain, tell
from onetrunk.runs.open import reachable
from onetrunk.runs.scores import cost_of, of_run, read_json
from onetrunk.store.run_folder import SCORES, RunFolder, shell
from onetrunk.train.device import choose_device
from onetrunk.train.new_domain.previous_pack import (
    check_unshared_heads,
    rename_classes,
    select_classes,
)
from onetrunk.train.new_domain.trials import pack_bytes, trunk_bytes, with_record


def update(
    run: str | os.PathLike[str],
    domain: Domain,
    *,
    rename: Mapping[str, str] | None = None,
    seed: int = 0,
    resume: bool = False,
    device: str | torch.device | None = None,
    train: Train | None = None,
) -> Grown:
    """Learn the domain of this name on from its pack, over the classes and images it has now.

    `rename`: classes from old to new name. `train`: its settings that are not
    given are those of the run.
    """
    document = {"seed": seed, "add": {}, "train": {} if train is None else train.given()}
    return update_run(Path(run), domain, document, rename or {}, resume=resume, device=device)


def update_run(
    run: Path,
    domain: Domain,
    document: Mapping[str, Any],
    rename: Mapping[str, str],
    *,
    again: str | None = None,
    resume: bool = False,
    device: str | torch.device | None = None,
) -> Grown:
    """The same; `document`: seed, [add] and [train] as the user gave them."""
    name, place = domain.name, choose_device(device)
    again = again or command("update", run, domain)
    top = shelf.check_run(run)
    with RunFolder.hold(run, again) as held:
        work = run / shelf.GROWING / name
        if waits(work, domain):
            return published(held, name)
        known(run, top, name)
        model = load(run)
        check_unshared_heads(model, name)
        old = Pack.open(shelf.pack_path(run, name))
        start = rename_classes(old, rename)
        say(f"{name}: {changes(start.card.tasks, domain.tasks)}")
        said = dict(document.get("train", {}))
        full = {**document, "train": merged_train(said, train_like(run, len(model.domains)))}
        asked = {k: v for k, v in dict(full.get("add", {})).items() if v is not None}
        kind: dict[str, Any] = {"adapters": _kind(old), "few": False}
        if old.card.rank is not None:
            kind["rank"] = old.card.rank
        full["add"] = {**kind, **asked}
        full["version"] = shelf.version_of(run, name) + 1
        growth = complete(full, said, domain, model, work)
        tell(domain)
        raise_domain(
            model, domain, growth, work, "updated", reachable(run), place,
            again=again, resume=resume, old=old, start=start,
        )  # fmt: skip
        return published(held, name)


def known(run: Path, top: Path, name: str) -> None:
    """Only what is there is updated."""
    if name not in listed(top):
        raise BadInput(
            f"{run} has no such domain",
            got=name,
            available=listed(top),
            try_=f"onetrunk add {shell(run)} {name} SOURCE",
        )


def _kind(pack: Pack) -> str:
    """What the domain owns; of one that was trained with its trunk, all that it has."""
    if pack.card.adapters != NO_ADAPTERS:
        return pack.card.adapters
    if pack.card.provenance.get("grown") == NO_ADAPTERS:
        return "none"
    return "norm" if any(key.startswith("slots/") for key in pack.tensors) else "none"


def changes(before: Sequence[Task], now: Sequence[Task]) -> str:
    """What becomes of the classes, for people."""
    there = {task.name: task for task in before}
    parts = []
    for task in now:
        was = there.get(task.name)
        if was is None:
            parts.append(f"{task.name} is new")
            continue
        new = [c for c in task.classes if c not in was.classes]
        lost = [c for c in was.classes if c not in task.classes]
        kept = len(task.classes) - len(new)
        words = [f"{kept} classes keep their rows"] if kept else []
        words += [f"new: {', '.join(new[:6])}" + ", …" * (len(new) > 6)] if new else []
        words += [f"gone: {', '.join(lost[:6])}" + ", …" * (len(lost) > 6)] if lost else []
        if words:
            parts.append(f"{task.name}: {'; '.join(words)}")
    return "; ".join(parts) or "the same tasks"


def relabel(
    run: str | os.PathLike[str],
    name: str,
    *,
    rename: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
) -> Grown:
    """Rename or drop classes without learning anything: all other rows stay to the bit."""
    folder = Path(run)
    top = shelf.check_run(folder)
    again = f"onetrunk update {shell(folder)} {name}"
    with RunFolder.hold(folder, again) as held:
        known(folder, top, name)
        model = load(folder)
        check_unshared_heads(model, name)
        old = Pack.open(shelf.pack_path(folder, name))
        new = _without(rename_classes(old, rename or {}), drop)
        others = reachable(folder)
        before = proof.take(model, others, name)
        model.remove(name)
        event = {"what": story.RELABELLED, "date": story.now(), "renamed": dict(rename or {})}
        event["dropped"] = list(drop)
        history = story.told([*story.history_of(old.card), event])
        version = shelf.version_of(folder, name) + 1
        provenance = {**new.card.provenance, "version": version, "history": history}
        new = with_record(new, provenance, new.card.scores if not drop else {})
        model.add_pack(new)
        shown = proof.compare(before, proof.take(model, others, name), name)
        say(f"{name}: {shown.said}")
        record = of_run(folder, name)
        grown = {**record.get("grown", {}), **_sizes(model, new), "what": story.RELABELLED}
        grown |= {"date": event["date"], "version": version}
        cost = cost_of(budget(only(model, name)), name)
        record |= {"grown": grown, "cost": cost, "proof": shown.to_json()}
        if drop:
            for split in ("val", "test"):
                record.pop(split, None)
        shelf.replace_with(held, name, new, record, keep_outcomes=not drop)
        return Grown(name, load(folder), record, folder)


def _without(pack: Pack, drop: Sequence[str]) -> Pack:
    known = {c for task in pack.card.tasks for c in task.classes}
    for c in drop:
        if c not in known:
            raise BadInput(f"{pack.card.name} has no such class", got=c, available=sorted(known))
    tasks = []
    for task in pack.card.tasks:
        left = [c for c in task.classes if c not in drop]
        if task.classes and not left:
            raise BadInput(f"{pack.card.name}/{task.name} would have no class", got=", ".join(drop))
        tasks.append(replace(task, classes=tuple(left)))
    return select_classes(pack, tasks)


def undo(run: str | os.PathLike[str], name: str) -> Grown:
    """The version before the last update, to the bit; the undone one is kept beside the history."""
    folder = Path(run)
    top = shelf.check_run(folder)
    again = f"onetrunk update {shell(folder)} {name} --undo"
    with RunFolder.hold(folder, again) as held:
        known(folder, top, name)
        kept = shelf.versions(folder, name)
        if not kept:
            raise BadInput(
                f"{name} was never updated: there is no version to go back to",
                try_=f"onetrunk info {shell(folder)}",
            )
        others = reachable(folder)
        before = proof.take(load(folder), others, name)
        shelf.go_back(held, name, kept[-1])
        model = load(folder)
        shown = proof.compare(before, proof.take(model, others, name), name)
        record = read_json(folder / shelf.GROWN / name / SCORES)
        # one that the run was trained with never had these two
        grown = {**_sizes(model, model.pack(name)), **record.get("grown", {})}
        record |= {"grown": grown, "proof": shown.to_json()}
        return Grown(name, model, record, folder)


def _sizes(model: Universal, pack: Pack) -> dict[str, Any]:
    """What a pack of this model owns, and what it weighs."""
    size = pack_bytes(pack)
    return {"adapters": pack.card.adapters, "bytes": size, "share": size / trunk_bytes(model)}
