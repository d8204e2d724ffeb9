"""The shelf: packs of a run's model that come, go, and are replaced, at no instant half.

```
RUN/growing/NAME/      a growth that is not finished; its pack and record once it is
RUN/grown/NAME/        the record of one that was grown: recipe.toml, metrics.jsonl, scores.json
RUN/history/NAME/N/    version N of its pack, with its record
RUN/removed/NAME/      the pack and the record of a domain that was removed, and its history
```

Everything here is done under the run's lock, in an order that a kill cannot harm, and again from
the start where one got: packs first, the list of domains (model/domains.json) last of what a model
in use reads.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onetrunk.config import Recipe
from onetrunk.config.add_recipe import AddRecipe, AddSettings, base_from, read_add_recipe
from onetrunk.errors import BadInput
from onetrunk.nn.model_files import PACKS, TRUNK, listed, relist
from onetrunk.nn.pack import Pack
from onetrunk.runs import scores as records
from onetrunk.runs.finish import OUTCOMES
from onetrunk.store.atomic import make_folder, sync_folder, write_atomic
from onetrunk.store.run_folder import LOCK, RECIPE, SCORES, RunFolder, shell
from onetrunk.store.strict_json import strict_json

GROWING, GROWN, HISTORY, REMOVED = "growing", "grown", "history", "removed"


def check_run(run: Path) -> Path:
    """The folder `model` of a finished run, or of `onetrunk.save`, on which domains may grow."""
    place = run / "model"
    if (run / RECIPE).is_file() and not (run / SCORES).is_file():
        raise BadInput(
            f"the run {run} is not finished, and nothing grows on a trunk that still moves",
            try_=f"onetrunk train {shell(run / RECIPE)} --resume",
        )
    if not place.is_dir():
        there = sorted(p.name for p in run.iterdir()) if run.is_dir() else []
        raise BadInput(
            f"no model in {run}", available=there, try_="onetrunk train RECIPE makes one"
        )
    if not (place / TRUNK).is_file():
        raise BadInput(
            f"{run} holds a network for each domain: there is no trunk that a new one could share",
            try_="onetrunk train with sharing = 'deep', then add to that run",
        )
    return place


def pack_path(run: Path, name: str) -> Path:
    """Where the model in use has a domain's pack."""
    return run / "model" / PACKS / f"{name}.pack"


def publish(held: RunFolder, name: str) -> None:
    """What `growing/NAME` finished becomes the run's; said again, it ends the same."""
    run = held.path
    work = run / GROWING / name
    with held.writing(f"the pack of {name}"):
        new = (work / f"{name}.pack").read_bytes()
        there = pack_path(run, name)
        if name in listed(run / "model") and there.read_bytes() != new:
            keep_version(held, name, read_add_recipe(work).version - 1)
        write_atomic(there, new)
    _merge(held, name, work)
    with held.writing("the list of domains"):
        names = listed(run / "model")
        if name not in names:
            relist(run / "model", [*names, name])
        to = run / GROWN / name
        make_folder(to.parent)
        gone(to)
        os.rename(work, to)
        for left in (f"{name}.pack", LOCK):
            (to / left).unlink(missing_ok=True)
        sync_folder(to.parent)


def _merge(held: RunFolder, name: str, folder: Path) -> None:
    records.merge(held, name, records.read_json(folder / SCORES))
    records.merge_outcomes(held, name, records.outcomes_of(folder / OUTCOMES, name))


def keep_version(held: RunFolder, name: str, number: int) -> Path:
    """The pack in use and its record, as a version of the domain's history."""
    return _aside(held, name, held.path / HISTORY / name / str(number))


def version_of(run: Path, name: str) -> int:
    """Of the pack in use: one more than those that are kept."""
    return 1 + max(versions(run, name), default=0)


def versions(run: Path, name: str) -> list[int]:
    """The numbers of the versions kept, rising."""
    top = run / HISTORY / name
    found = [path.name for path in top.iterdir()] if top.is_dir() else []
    return sorted(int(each) for each in found if each.isdecimal())


def _aside(held: RunFolder, name: str, to: Path) -> Path:
    """A copy of the domain's pack and record, whole or not there."""
    run = held.path

    def fill(part: Path) -> None:
        grown = run / GROWN / name
        if grown.is_dir():
            shutil.copytree(grown, part, dirs_exist_ok=True, ignore=_no_locks)
        else:
            write_record(run, name, part)
        write_atomic(part / f"{name}.pack", pack_path(run, name).read_bytes())

    with held.writing(f"the version of {name}"):
        return whole(to, fill)


def _no_locks(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == ".lock"]


def write_record(run: Path, name: str, to: Path) -> None:
    """The record of a domain that the run was trained with, in a folder as that of a grown one."""
    document = records.of_run(run, name)
    write_atomic(to / SCORES, strict_json(document, indent=2) + "\n")
    outcomes = records.outcomes_of(run / OUTCOMES, name)
    if outcomes is not None:
        outcomes.save(to / OUTCOMES)
    growth = original(run, name)
    if growth is not None:
        write_atomic(to / RECIPE, growth.to_toml())


def original(run: Path, name: str) -> AddRecipe | None:
    """A domain of the run's recipe as a growth would have it; None where it has no such domain."""
    if not (run / RECIPE).is_file():
        return None
    recipe = Recipe.read(run)
    part = next((p for p in recipe.domains if p.name == name), None)
    if part is None:
        return None
    return AddRecipe(
        seed=recipe.seed,
        base=base_from(recipe.root, run / GROWN / name),
        add=AddSettings(adapters="none"),
        domains=(part,),
        train=recipe.train,
    )


def whole(to: Path, fill: Callable[[Path], Any]) -> Path:
    """A folder that is filled beside its place and renamed into it; one that is there stays."""
    if to.exists():
        return to
    make_folder(to.parent)
    part = to.with_name(f".{to.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        fill(part)
        sync_folder(part)
        os.rename(part, to)
        sync_folder(to.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return to


def gone(folder: Path) -> None:
    """No such folder any more; under another name first, so that half of it is never read."""
    if folder.exists():
        away = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
        os.rename(folder, away)
        shutil.rmtree(away, ignore_errors=True)


def remove(run: Path, name: str) -> Path:
    """Take a domain out of the run's model; where its pack and its record lie now."""
    check_run(run)
    again = f"onetrunk remove {shell(run)} {name}"
    with RunFolder.hold(run, again) as held:
        names = listed(run / "model")
        to = _place_for(run, name)
        if name in names:
            gone(to)
            _aside(held, name, to)
        elif not records.knows(run, name):  # or what a kill left of an earlier removal
            raise BadInput(f"{run} has no such domain", got=name, available=names)
        with held.writing("the list of domains"):
            relist(run / "model", [other for other in names if other != name])
            pack_path(run, name).unlink(missing_ok=True)
            gone(run / GROWN / name)
            if (run / HISTORY / name).is_dir():
                os.rename(run / HISTORY / name, to / HISTORY)
        records.merge(held, name, None)
        records.merge_outcomes(held, name, None)
    return to / f"{name}.pack"


def _place_for(run: Path, name: str) -> Path:
    """Where a removed domain goes: never in place of another one of its name."""
    there = pack_path(run, name)
    pack = there.read_bytes() if there.is_file() else b""
    number = 1
    while True:
        to = run / REMOVED / (name if number == 1 else f"{name}-{number}")
        old = to / f"{name}.pack"
        if not old.is_file() or (old.read_bytes() == pack and not (to / HISTORY).is_dir()):
            return to
        number += 1


def replace_with(
    held: RunFolder, name: str, pack: Pack, record: dict[str, Any], keep_outcomes: bool
) -> None:
    """Another pack in place of the one in use, which is kept as a version."""
    run, number = held.path, version_of(held.path, name)
    work = run / GROWING / f"{name}.next"
    gone(work)

    def fill(part: Path) -> None:
        growth = (
            read_add_recipe(run / GROWN / name) if (run / GROWN / name / RECIPE).is_file() else None
        )
        growth = growth or original(run, name)
        if growth is not None:
            text = growth.model_copy(update={"version": number + 1}).to_toml()
            write_atomic(part / RECIPE, text)
        outcomes = records.outcomes_of(run / OUTCOMES, name) if keep_outcomes else None
        if outcomes is not None:
            outcomes.save(part / OUTCOMES)
        write_atomic(part / SCORES, strict_json(record, indent=2) + "\n")
        pack.save(part / f"{name}.pack")

    with held.writing(f"the pack of {name}"):
        whole(work, fill)
        keep_version(held, name, number)
    put_back(held, name, work)
    gone(work)


def go_back(held: RunFolder, name: str, number: int) -> None:
    """A version of the history is in use again; the one that was lies beside it, as undone."""
    top = held.path / HISTORY / name
    undone = top / f"undone-{number + 1}"
    with held.writing(f"the version of {name}"):
        if not (top / str(number) / "back").exists():  # else a kill came in the middle
            gone(undone)
            _aside(held, name, undone)
            write_atomic(top / str(number) / "back", "")
    put_back(held, name, top / str(number))
    with held.writing(f"the version of {name}"):
        gone(top / str(number))


def put_back(held: RunFolder, name: str, folder: Path) -> None:
    """A pack with its record, from a folder of the history or of what was removed, into use."""
    run = held.path
    with held.writing(f"the pack of {name}"):
        write_atomic(pack_path(run, name), (folder / f"{name}.pack").read_bytes())
    _merge(held, name, folder)
    with held.writing("the list of domains"):
        gone(run / GROWN / name)
        if (folder / RECIPE).is_file() or (folder / SCORES).is_file():
            kept = shutil.ignore_patterns("*.pack", LOCK, "back")
            whole(
                run / GROWN / name,
                lambda part: shutil.copytree(folder, part, dirs_exist_ok=True, ignore=kept),
            )
        names = listed(run / "model")
        if name not in names:
            relist(run / "model", [*names, name])
