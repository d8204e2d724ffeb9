"""`onetrunk info`: show the contents of a run."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from onetrunk.cli.options import AsJson
from onetrunk.cli.output import console, print_json, suggest
from onetrunk.config.add_recipe import read_add_recipe
from onetrunk.config.recipe import FILE
from onetrunk.data.task import Task
from onetrunk.display import scaled
from onetrunk.errors import printable, shorten
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
    as_json: AsJson = False,
) -> None:
    """Show the contents of a run."""
    opened = Run(run)
    if opened.state == "unfinished":
        _unfinished(opened, as_json)
        return
    document = _describe(opened)
    if as_json:
        print_json(document)
        return
    _show(document)
    place, name = shlex.quote(str(run)), next(iter(document["domains"]), "")
    if not name:
        print("The model has no domains.")
        suggest(f"onetrunk add {place} NAME SOURCE")
        return
    predict = f"onetrunk predict {place} IMAGE --domain {name}"
    suggest(*([f"onetrunk eval {place}"] if opened.recipe is not None else []), predict)


def _describe(run: Run) -> dict[str, Any]:
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
    """Return the number of parameters, shared or of a domain, each counted once."""
    parameters = list(model.shared_parameters().values())
    for name in model.domains:
        parameters += model.parameters_of(name).values()
    return sum({id(p): p.numel() for p in parameters}.values())


def _headlines(card: Card, scores: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the test score of each task; for an imported pack, the score in its header."""
    found = {}
    for task in card.tasks:
        metric = headline(task.kind)
        key = f"test/{task.name}/{metric.name}"
        value, low, high = (card.scores.get(key + end) for end in ("", "/low", "/high"))
        if isinstance(value, int | float):
            found[task.name] = {
                "metric": metric.name,
                "value": value,
                "unit": metric.unit,
                "low": low,
                "high": high,
                "images": None,
                "recorded_in": "pack",
            }
    rows = Table.from_json(scores["test"]).headlines() if "test" in scores else []
    for row in rows:
        if row.domain == card.name:
            found[row.task] = {
                "metric": row.metric,
                "value": row.value,
                "unit": row.unit,
                "low": row.low,
                "high": row.high,
                "images": row.count,
                "recorded_in": "run",
            }
    return found


def _task(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "kind": task.kind,
        "classes": list(task.classes),
        "outputs": task.outputs,
        "unit": task.unit,
    }


def _show(found: Mapping[str, Any]) -> None:
    """Print the run, and a block of lines for each domain that fits a narrow terminal."""
    trunk, columns = found["trunk"], max(40, console().width)
    lines = [f"{found['name'] or 'a model'} in {found['run']}"]
    if found["finished"]:
        date = str(found["finished"])[:16].replace("T", " ")
        lines.append(f"finished {date} UTC, seed {found['seed']}")
    lines.append(
        f"{trunk.get('arch')}, norm {trunk.get('norm')}, sharing {trunk.get('sharing')}; "
        f"{found['networks']} network{'s' * (found['networks'] != 1)} of "
        f"{scaled(found['parameters'])} parameters, {scaled(found['bytes'], 'B')} on disk"
    )
    if trunk.get("licence"):
        lines.append(f"licence of the trunk's weights: {trunk['licence']}")
    for name, domain in found["domains"].items():
        height, width = domain["size"]
        size = scaled(domain["pack_bytes"], "B")
        origin = _origin(domain)
        lines += ["", f"{name}: {height}×{width} pixels, a pack of {size}{origin}"]
        for task in domain["tasks"]:
            lines += [f"  {_label(task)}: {_score(domain['scores'].get(task['name']))}"]
            if task["classes"]:
                lines += [f"    {_classes(task['classes'], columns - 4)}"]
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        print("\n".join(wrap(printable(line), columns, subsequent_indent=indent)))


def wrap(line: str, columns: int, subsequent_indent: str) -> list[str]:
    """Split a line between words; paths and other long words are never cut."""
    return textwrap.wrap(
        line,
        columns,
        subsequent_indent=subsequent_indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def _label(task: Mapping[str, Any]) -> str:
    """Return the name of a task, and its kind where that is another word."""
    name, kind = task["name"], task["kind"]
    return str(name) if name == kind else f"{name} ({kind})"


def _score(score: Mapping[str, Any] | None) -> str:
    """Describe the test score of a task."""
    if score is None:
        return "no test score"
    unit = score["unit"]
    text = f"test {score['metric']} {number(score['value'], unit)}{spaced(unit)}"
    if isinstance(score["low"], int | float) and isinstance(score["high"], int | float):
        text += f" ({number(score['low'], unit)}–{number(score['high'], unit)})"
    if score["images"] is not None:
        text += f" on {score['images']:,} images"
    return text + (", as recorded in its pack" if score["recorded_in"] == "pack" else "")


def _classes(classes: Sequence[str], columns: int) -> str:
    """List as many classes as fit into one line; at least one."""
    counted = f"{len(classes):,} class{'es' * (len(classes) != 1)}: "
    shown = len(classes)
    while True:
        listed = counted + ", ".join(classes[:shown]) + ", …" * (shown < len(classes))
        if shown == 1 or len(printable(listed)) <= columns:
            return listed
        shown -= 1


def _origin(domain: Mapping[str, Any]) -> str:
    """Describe the source of a domain's images or pack, and its last change."""
    events = domain["provenance"].get("history")
    last = events[-1] if isinstance(events, list) and events else None
    since = ""
    if isinstance(last, dict):  # a pack may contain anything here
        since = f"{last.get('event', '')} {str(last.get('date', ''))[:10]}".strip()
    source = f"from {domain['source']}" if domain["source"] else ""
    return "".join(f", {part}" for part in (source, since) if part)


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
