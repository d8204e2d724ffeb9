"""`onetrunk info`: what a run holds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as Grid

from onetrunk.cli.output import console, print_json, suggest
from onetrunk.config.add_recipe import read_add_recipe
from onetrunk.config.recipe import FILE
from onetrunk.data.task import Task
from onetrunk.errors import printable, shorten
from onetrunk.eval.budget import scaled
from onetrunk.eval.metrics import headline
from onetrunk.eval.table import Table, number, spaced
from onetrunk.nn.card import Card
from onetrunk.nn.universal import Universal
from onetrunk.runs.open import Run

EXAMPLES = """onetrunk info runs/shop
# every pack with its full history
onetrunk info runs/shop --json
"""


def command(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of onetrunk.save.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show what a run contains."""
    opened = Run(run)
    if opened.state == "unfinished":
        _unfinished(opened, as_json)
        return
    found = _described(opened)
    if as_json:
        print_json(found)
        return
    _show(found)
    place, name = shlex.quote(str(run)), next(iter(found["domains"]), "")
    if not name:
        print("It has no domains.")
        suggest(f"onetrunk add {place} NAME SOURCE")
        return
    predict = f"onetrunk predict {place} IMAGE --domain {name}"
    suggest(*([f"onetrunk eval {place}"] if opened.recipe is not None else []), predict)


def _described(run: Run) -> dict[str, Any]:
    networks, recipe, scores = list(run.models.values()), run.recipe, run.scores
    sources = {} if recipe is None else {part.name: part.source for part in recipe.domains}
    sources |= {
        name: read_add_recipe(folder).domain.source for name, folder in run.added_folders.items()
    }
    splits, added = scores.get("splits", {}), scores.get("added", {})
    origins = {name: f"pack:{about['from']}" for name, about in added.items() if "from" in about}
    domains = {
        name: {
            "tasks": [_task(task) for task in model.domains[name].tasks],
            "size": list(model.domains[name].pixels.size),
            "adapters": model.domains[name].adapters,
            "source": sources.get(name) or origins.get(name),
            "pack_bytes": run.pack_path(name).stat().st_size,
            "images": splits.get(name),
            "scores": _headlines(model.domains[name], scores),
            "provenance": dict(model.domains[name].provenance),
            "versions": run.versions(name),
        }
        for name, model in run.networks.items()
    }
    trunk, files = networks[0].trunk, (run.folder / "model").rglob("*")
    return {
        "run": str(run.folder),
        "name": None if recipe is None else recipe.name,
        "seed": scores.get("seed"),
        "finished": scores.get("finished"),
        "trunk": {**trunk.describe(), "licence": trunk.licence},
        "networks": len(networks),
        "parameters": sum(map(_parameters, networks)),
        "bytes": sum(path.stat().st_size for path in files if path.is_file()),
        "domains": domains,
    }


def _parameters(model: Universal) -> int:
    """Count the parameters that domains share or own, each once."""
    found = list(model.shared_parameters().values())
    for name in model.domains:
        found += model.parameters_of(name).values()
    return sum({id(p): p.numel() for p in found}.values())


def _headlines(card: Card, scores: Mapping[str, Any]) -> dict[str, str]:
    """Format the test score of each task; for an imported pack, the score that it records."""
    found = {}
    for task in card.tasks:
        metric = headline(task.kind)
        value = card.scores.get(f"test/{task.name}/{metric.name}")
        if isinstance(value, int | float):
            said = f"{metric.name} {number(value, metric.unit)}{spaced(metric.unit)}"
            found[task.name] = f"{said}, recorded in its pack"
    rows = Table.from_json(scores["test"]).headlines() if "test" in scores else []
    return found | {row.task: f"{row.metric} {row.text}" for row in rows if row.domain == card.name}


def _task(task: Task) -> dict[str, Any]:
    said = {"name": task.name, "kind": task.kind, "classes": list(task.classes)}
    return {**said, "outputs": task.outputs, "unit": task.unit}


def _show(found: Mapping[str, Any]) -> None:
    trunk = found["trunk"]
    lines = [f"{found['name'] or 'a model'} in {found['run']}"]
    if found["finished"]:
        lines.append(f"finished {found['finished']}, seed {found['seed']}")
    lines.append(
        f"{trunk.get('arch')}, norm {trunk.get('norm')}, sharing {trunk.get('sharing')}; "
        f"{found['networks']} network{'s' * (found['networks'] != 1)} of "
        f"{scaled(found['parameters'])} parameters, {scaled(found['bytes'], 'B')} on disk"
    )
    if trunk.get("licence"):
        lines.append(f"licence of the trunk's weights: {trunk['licence']}")
    print("\n".join(printable(line) for line in lines))
    grid = Grid()
    for column in ("domain", "task", "pixels", "classes", "score on test", "pack", "from"):
        grid.add_column(column)
    for name, domain in found["domains"].items():
        height, width = domain["size"]
        for place, task in enumerate(domain["tasks"]):
            classes = task["classes"]
            said = (
                f"{len(classes):,}: {', '.join(classes[:3])}{', …' * (len(classes) > 3)}"
                if classes
                else ""
            )
            score = domain["scores"].get(task["name"], "")
            what = task["name"]
            what += "" if task["kind"] == task["name"] else f" ({task['kind']})"
            size, origin = scaled(domain["pack_bytes"], "B"), _origin(domain)
            first = (name, f"{height}×{width}", size, origin) if not place else [""] * 4
            row = (first[0], what, first[1], said, score, *first[2:])
            grid.add_row(*(escape(printable(str(cell))) for cell in row))
    console().print(grid)


def _origin(domain: Mapping[str, Any]) -> str:
    """Return the source of a domain's images or pack, and its last change."""
    events = domain["provenance"].get("history")
    last = events[-1] if isinstance(events, list) and events else None
    since = ""
    if isinstance(last, dict):  # packs come from anywhere, so its type is not known
        since = f"{last.get('event', '')} {str(last.get('date', ''))[:10]}".strip()
    return ", ".join(part for part in (domain["source"] or "", since) if part)


def _unfinished(run: Run, as_json: bool) -> None:
    recipe, step = run.recipe, run.last_step
    if recipe is None:
        return
    if as_json:
        found = {"run": str(run.folder), "name": recipe.name, "finished": None, "step": step}
        domains = {part.name: {"source": part.source} for part in recipe.domains}
        print_json({**found, "domains": domains})
        return
    print(f"{recipe.name} in {run.folder}: not finished; the last checkpoint is step {step}")
    print(f"{recipe.trunk.arch}, sharing {recipe.trunk.sharing}; domains: {shorten(run.names, 12)}")
    suggest(f"onetrunk train {shlex.quote(str(run.folder / FILE))} --resume")
