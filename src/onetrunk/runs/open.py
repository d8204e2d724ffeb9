"""The domains of a run with their images: those of its recipe, and those that were grown."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from onetrunk.config import Recipe
from onetrunk.config.add_recipe import added_domain
from onetrunk.data.domain import Domain
from onetrunk.errors import OnetrunkError
from onetrunk.nn.model_files import TRUNK, listed
from onetrunk.nn.pack import Pack
from onetrunk.runs import history as story
from onetrunk.runs.history import RELABELLED
from onetrunk.runs.pack_store import GROWN, pack_path
from onetrunk.runs.scores import read_json
from onetrunk.store.run_folder import RECIPE, SCORES


def domains_of(run: str | PathLike[str]) -> list[Domain]:
    """In the model's order; a pack from elsewhere, whose images nobody named, is left out."""
    folder = Path(run)
    found: dict[str, Domain] = {}
    if (folder / RECIPE).is_file():
        found = {one.name: one for one in Recipe.read(folder).make_domains()}
    for name, place in grown(folder).items():
        found[name] = added_domain(place)
    names = model_names(folder)
    if not names:
        return list(found.values())
    return [as_called(folder, found[name]) for name in names if name in found]


def as_called(run: Path, domain: Domain) -> Domain:
    """The domain with the classes that its pack has since they were renamed or dropped.

    A source that has them too, because its folders were renamed, stays as it is.
    """
    if read_json(run / GROWN / domain.name / SCORES).get("grown", {}).get("what") != RELABELLED:
        return domain
    card = Pack.open(pack_path(run, domain.name)).card
    known = {task.name: set(task.classes) for task in card.tasks}
    try:
        there = {task.name: set(task.classes) for task in domain.tasks if not task.dense}
    except OnetrunkError:
        return domain
    if all(known.get(name, classes) == classes for name, classes in there.items()):
        return domain
    names = {c: story.called_now(card, c) for classes in there.values() for c in classes}
    return domain.renamed(names, card.tasks)


def grown(run: Path) -> dict[str, Path]:
    """By name the folders of domains that were grown and whose images are known."""
    top = run / GROWN
    paths = sorted(top.iterdir()) if top.is_dir() else []
    return {p.name: p for p in paths if p.name[0] != "." and (p / RECIPE).is_file()}


def model_names(run: Path) -> Sequence[str]:
    """The domains of the run's one model, in order; nothing where there are several, or none."""
    if not (run / "model" / TRUNK).is_file():
        return ()
    return listed(run / "model")


def reachable(run: Path) -> dict[str, Domain]:
    """By name those whose settings can be read, whatever is wrong with others."""
    try:
        return {domain.name: domain for domain in domains_of(run)}
    except OnetrunkError:
        found = {}
        for name, place in grown(run).items():
            try:
                found[name] = as_called(run, added_domain(place))
            except OnetrunkError:
                continue
        return found
