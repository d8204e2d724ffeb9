"""Publish, replace, restore and remove the packs of a run's model; safe if the process is killed.

```
RUN/adding/NAME/       a domain in training, then its pack and record
RUN/added/NAME/        the record of a domain in use: recipe.toml, metrics.jsonl, scores.json, …
RUN/history/NAME/N/    version N of its pack, with its record
RUN/removed/NAME/      the pack, record and history of a domain that was removed
```

Everything is done under the run's lock. Packs are written before the list of domains
(model/domains.json), by which a model is read, so that the model is valid if the process is killed.
A function that is called again after that completes its work.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onetrunk.config.add_recipe import read_add_recipe
from onetrunk.data.kept_splits import ADDED
from onetrunk.data.kept_splits import FILE as SPLITS_FILE
from onetrunk.errors import BadInput
from onetrunk.nn.model_files import PACKS, listed, relist
from onetrunk.nn.pack import Pack
from onetrunk.runs.open import HISTORY, MODEL, OUTCOMES, Run, domain_outcomes
from onetrunk.store.atomic import (
    atomic_folder,
    make_folder,
    remove_folder,
    sync_folder,
    write_atomic,
)
from onetrunk.store.run_folder import LOCK, RECIPE, SCORES, RunFolder, shell
from onetrunk.store.strict_json import strict_json

ADDING, REMOVED = "adding", "removed"
RESTORING = "restoring"  # the file that marks a version whose restoration has begun


def pack_path(run: Path, name: str) -> Path:
    """Return the file of a domain's pack in the model in use."""
    return run / MODEL / PACKS / f"{name}.pack"


def publish(held: RunFolder, name: str) -> None:
    """Put the finished pack and record in `adding/NAME` into use."""
    run = held.path
    work = run / ADDING / name
    with held.writing(f"the pack of {name}"):
        new = (work / f"{name}.pack").read_bytes()
        in_use = pack_path(run, name)
        if name in listed(run / MODEL) and in_use.read_bytes() != new:
            keep_version(held, name, read_add_recipe(work).version - 1)
        write_atomic(in_use, new)
    with held.writing("the list of domains"):
        _list(run, name)
        to = run / ADDED / name
        make_folder(to.parent)
        remove_folder(to)
        os.rename(work, to)
        for left in (f"{name}.pack", LOCK):
            (to / left).unlink(missing_ok=True)
        sync_folder(to.parent)


def keep_version(held: RunFolder, name: str, number: int) -> None:
    """Keep the pack in use and its record as a version of the domain's history."""
    _copy_in_use(held, name, held.path / HISTORY / name / str(number))


def version_in_use(run: Path, name: str) -> int:
    """Return the version of the pack in use: one more than the latest in the history."""
    return 1 + max(Run(run).versions(name), default=0)


def replace_pack(
    held: RunFolder, name: str, pack: Pack, record: Mapping[str, Any], keep_outcomes: bool
) -> None:
    """Put another pack and record into use, and keep the previous ones in the history.

    Args:
        held: The locked run.
        name: The domain.
        pack: The new pack.
        record: The new record.
        keep_outcomes: Whether the outcomes of the previous pack hold for the new one.
    """
    run, number = held.path, version_in_use(held.path, name)
    work = run / ADDING / f"{name}.next"
    remove_folder(work)

    def fill(part: Path) -> None:
        if (run / ADDED / name / RECIPE).is_file():
            settings = read_add_recipe(run / ADDED / name).model_copy(
                update={"version": number + 1}
            )
            write_atomic(part / RECIPE, settings.to_toml())
            if (run / ADDED / name / SPLITS_FILE).is_file():
                shutil.copyfile(run / ADDED / name / SPLITS_FILE, part / SPLITS_FILE)
        outcomes = domain_outcomes(run, name) if keep_outcomes else None
        if outcomes is not None:
            outcomes.save(part / OUTCOMES)
        write_atomic(part / SCORES, strict_json(record, indent=2) + "\n")
        pack.save(part / f"{name}.pack")

    with held.writing(f"the pack of {name}"):
        make_complete(work, fill)
        keep_version(held, name, number)
    restore(held, name, work)
    remove_folder(work)


def restore_version(held: RunFolder, name: str, number: int) -> None:
    """Put a version of the history back into use; the present one is kept as `undone-N`."""
    top = held.path / HISTORY / name
    undone = top / f"undone-{number + 1}"
    with held.writing(f"the version of {name}"):
        if not (top / str(number) / RESTORING).exists():  # otherwise a kill interrupted this
            remove_folder(undone)
            _copy_in_use(held, name, undone)
            write_atomic(top / str(number) / RESTORING, "")
    restore(held, name, top / str(number))
    with held.writing(f"the version of {name}"):
        remove_folder(top / str(number))


def restore(held: RunFolder, name: str, folder: Path) -> None:
    """Put the pack in a folder into use, with its record.

    A folder without a record belongs to a domain that has not changed since the training. Its
    record is in the scores of the run.
    """
    run = held.path
    with held.writing(f"the pack of {name}"):
        write_atomic(pack_path(run, name), (folder / f"{name}.pack").read_bytes())
    with held.writing("the list of domains"):
        remove_folder(run / ADDED / name)
        if (folder / SCORES).is_file():
            ignore = shutil.ignore_patterns("*.pack", LOCK, RESTORING, HISTORY)
            make_complete(
                run / ADDED / name,
                lambda part: shutil.copytree(folder, part, dirs_exist_ok=True, ignore=ignore),
            )
        _list(run, name)


def remove(run: str | os.PathLike[str], name: str) -> Path:
    """Remove a domain from the model of a run; all others stay unchanged, to the bit.

    Args:
        run: The folder of a finished run.
        name: The domain.

    Returns:
        The file of its pack, below `RUN/removed`; `onetrunk add RUN NAME pack:FILE` restores it.
    """
    folder = Path(run)
    opened = Run(folder)
    opened.check_shared_trunk()
    opened.check_shares_trunk(name)
    with RunFolder.hold(folder, f"onetrunk remove {shell(folder)} {name}") as held:
        names = listed(folder / MODEL)
        to = _removed_folder(folder, name, begun=name not in names)
        if to is None:
            raise BadInput(f"{folder} has no such domain", got=name, available=names)
        if name in names:
            remove_folder(to)
            _copy_in_use(held, name, to)
        with held.writing("the list of domains"):
            relist(folder / MODEL, [other for other in names if other != name])
            if (folder / HISTORY / name).is_dir():
                os.rename(folder / HISTORY / name, to / HISTORY)
            remove_folder(folder / ADDED / name)
            pack_path(folder, name).unlink(
                missing_ok=True
            )  # last, as it marks an unfinished removal
    return to / f"{name}.pack"


def _removed_folder(run: Path, name: str, begun: bool) -> Path | None:
    """Return the folder for a removed domain; earlier removals of the same name are kept.

    With `begun`, return the folder that an interrupted removal has filled, or None.
    """
    in_use = pack_path(run, name)
    pack = in_use.read_bytes() if in_use.is_file() else None
    number = 1
    while True:
        to = run / REMOVED / (name if number == 1 else f"{name}-{number}")
        old = to / f"{name}.pack"
        if not old.is_file():
            return None if begun else to
        if old.read_bytes() == pack and (begun or not (to / HISTORY).is_dir()):
            return to
        number += 1


def _copy_in_use(held: RunFolder, name: str, to: Path) -> None:
    """Copy the pack in use and its record to a new folder."""
    run = held.path

    def fill(part: Path) -> None:
        if (run / ADDED / name).is_dir():
            ignore = shutil.ignore_patterns(LOCK)
            shutil.copytree(run / ADDED / name, part, dirs_exist_ok=True, ignore=ignore)
        write_atomic(part / f"{name}.pack", pack_path(run, name).read_bytes())

    with held.writing(f"the version of {name}"):
        make_complete(to, fill)


def _list(run: Path, name: str) -> None:
    """Append the domain to the list of the model, unless it is listed already."""
    names = listed(run / MODEL)
    if name not in names:
        relist(run / MODEL, [*names, name])


def make_complete(to: Path, fill: Callable[[Path], Any]) -> None:
    """Make a folder that is either complete or absent; an existing one is not changed.

    Args:
        to: The folder.
        fill: Called with the new folder, while it has a temporary name.
    """
    if not to.exists():
        with atomic_folder(to) as part:
            fill(part)
