"""What a user would otherwise pick, over the same domains, from the same recipe.

| kind | what it is | how the recipe differs |
|---|---|---|
| frozen | linear heads on the trunk as it starts | `train.frozen = true`, `trunk.norm = "shared"` |
| finetune | a full network for each domain | `trunk.sharing = "none"` |
| joint | one network, and nothing per domain but heads | `trunk.norm = "shared"` |

None has adapters. Each is an ordinary run beside the recipe's own: OUT-frozen, OUT-finetune and
OUT-joint; what they cost and score together is OUT-baselines.json.
"""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.table

from onetrunk.config import Recipe
from onetrunk.errors import BadInput
from onetrunk.eval.metrics import as_error
from onetrunk.eval.table import Row, Table, number, spaced
from onetrunk.nn.model_files import TRUNK
from onetrunk.nn.norms import find_norm
from onetrunk.nn.saving import models_of
from onetrunk.progress import say
from onetrunk.runs.train import train_recipe
from onetrunk.store.atomic import write_atomic
from onetrunk.store.differ import differ
from onetrunk.store.run_folder import METRICS, RECIPE, SCORES
from onetrunk.store.strict_json import strict_json

KINDS = ("frozen", "finetune", "joint")
FORMAT = 1
ALONE = ('trunk.adapters="none"', "trunk.own_stages=[]")  # nothing per domain


def baselines(
    recipe: Recipe,
    kinds: Sequence[str] = KINDS,
    *,
    resume: bool = False,
    device: str | None = None,
) -> dict[str, Any]:
    """Train these baselines of a recipe, one after the other; what is finished stays as it is.

    Returns, and writes beside the runs, what each scores on the test splits (`rows`: domain, task,
    metric and values by kind) and costs (`runs`: parameters, seconds, by kind).
    """
    for kind in kinds:
        if kind not in KINDS:
            raise BadInput("unknown baseline", got=kind, available=KINDS)
    if not kinds or len(set(kinds)) < len(kinds):
        raise BadInput(
            "expected baselines, each once", got=", ".join(kinds) or "none", available=KINDS
        )
    for kind in kinds:
        check_start(recipe, kind)
    todo = {kind: variant(recipe, kind) for kind in kinds}
    finished = {kind: _finished(one, resume) for kind, one in todo.items()}
    for kind, one in todo.items():
        if finished[kind]:
            say(f"{kind}: {one.out_folder} is finished, and stays as it is")
        else:
            say(f"{kind}: {one.out_folder}")
            train_recipe(one, resume=resume and (one.out_folder / RECIPE).exists(), device=device)
    document = {
        "format": FORMAT,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "runs": {kind: _run(one) for kind, one in todo.items()},
        "rows": _rows({kind: _table(one) for kind, one in todo.items()}),
        "next": _next(recipe, kinds),
    }
    write_atomic(beside(recipe, "baselines.json"), strict_json(document, indent=1) + "\n")
    return document


def variant(recipe: Recipe, kind: str) -> Recipe:
    """The recipe of one baseline."""
    sets = [
        f"out={json.dumps(recipe.out.rstrip('/') + '-' + kind)}",
        f"name={recipe.name[: 63 - len(kind)]}-{kind}",
        f"train.frozen={json.dumps(kind == 'frozen')}",
        *(["distill.enabled=false"] if recipe.distill.on or recipe.distill.uses_lwf else []),
    ]
    if kind == "finetune":
        return recipe.with_sets([*sets, *ALONE, 'trunk.sharing="none"'])
    if recipe.init_folder is None:
        return recipe.with_sets([*sets, *ALONE, 'trunk.sharing="deep"', 'trunk.norm="shared"'])
    if kind == "joint":
        return recipe.with_sets([*sets, *ALONE, 'trunk.sharing="deep"'])
    # frozen as that run left it: with what it learned for each domain
    several = not (recipe.init_folder / "model" / TRUNK).is_file()
    if recipe.trunk.sharing == "full" or (recipe.trunk.sharing == "none" and not several):
        sets.append('trunk.sharing="deep"')
    return recipe.with_sets(sets)


def check_start(recipe: Recipe, kind: str) -> None:
    """Refuse a baseline that cannot start from the recipe's `init`: what it lacks is in there."""
    if recipe.init_folder is None or kind == "frozen":
        return
    own, rest, got = "", "", f"norm = {recipe.trunk.norm!r}"
    if kind == "joint" and find_norm(recipe.trunk.norm).replaces_layers:
        own, rest = "norms", "frozen,finetune"
    if recipe.trunk.own_stages and any(
        model.trunk.own_stages for model in models_of(recipe.init_folder).values()
    ):
        own, rest, got = "stages", "frozen", f"own_stages = {list(recipe.trunk.own_stages)}"
    if own:
        raise BadInput(
            f"{kind} has no {own} of a domain's own, so it cannot start from {recipe.init}",
            got=got,
            try_=f"--only {rest}",
        )


def beside(recipe: Recipe, ending: str) -> Path:
    """OUT-ENDING."""
    out = recipe.out_folder
    return out.with_name(f"{out.name}-{ending}")


def _finished(one: Recipe, resume: bool) -> bool:
    """Whether there is nothing to do; a folder that is in the way is refused before any starts."""
    folder = one.out_folder
    try:
        there = (folder / RECIPE).read_text("utf-8")
    except FileNotFoundError:
        return False
    if keys := differ(there, one.moved_to(folder).to_toml()):
        raise BadInput(
            f"{folder} holds another run: its recipe differs in {'; '.join(keys[:6])}",
            try_="another `out`, or remove that folder",
        )
    done = (folder / SCORES).exists()
    if not done and not resume:
        raise BadInput(f"{folder} is unfinished", try_="the same command with --resume")
    return done


def _scores(one: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((one.out_folder / SCORES).read_text("utf-8"))
    return found


def _table(one: Recipe) -> Table:
    return Table.from_json(_scores(one)["test"])


def _run(one: Recipe) -> dict[str, Any]:
    """Where a run is, and what it costs: parameters in multiples of one network of its kind."""
    budgets = _scores(one)["budget"].values()
    parameters = sum(part["universal"]["parameters"] for part in budgets)
    alone = sum(part["separate"]["parameters"] for part in budgets) / len(one.domains)
    weights = "fresh" if one.trunk.pretrained is False else "pretrained"
    return {
        "out": one.out,
        "weights": f"of {one.init}" if one.init else weights,
        "parameters": parameters,
        "networks": parameters / alone,
        "seconds": seconds_of(one.out_folder),
        "mean_error": _mean(_table(one).headlines()),
    }


def seconds_of(folder: Path) -> float:
    """What a run's training took, by its metrics: every head that was solved, every part's loop."""
    solved = 0.0
    loops: dict[str, float] = {}
    for line in (folder / METRICS).read_text("utf-8").splitlines():
        record = json.loads(line)
        if "frozen" in record:
            solved += record["seconds"]
        elif "seconds" in record:  # counts up
            loops[record["part"]] = record["seconds"]
    return round(solved + sum(loops.values()), 3)


def _mean(rows: Sequence[Row]) -> float | None:
    """Of the domains' headline errors, where all are of one kind: metres and percent have none."""
    if len({row.kind for row in rows}) != 1:
        return None
    by_domain: dict[str, list[float]] = {}
    for row in rows:
        by_domain.setdefault(row.domain, []).append(as_error(row.kind, row.value))
    return statistics.fmean(statistics.fmean(errors) for errors in by_domain.values())


def _rows(tables: Mapping[str, Table]) -> list[dict[str, Any]]:
    """One for each task that any of them has a headline of."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for kind, table in tables.items():
        for row in table.headlines():
            said = {
                key: getattr(row, key) for key in ("domain", "task", "metric", "unit", "better")
            }
            made = found.setdefault((row.domain, row.task), {**said, "values": {}})
            made["values"][kind] = row.value
    return list(found.values())


def _next(recipe: Recipe, kinds: Sequence[str]) -> str:
    """What to type when the recipe itself is trained."""
    out = recipe.out_folder
    against = next(kind for kind in ("finetune", "joint", "frozen") if kind in kinds)
    run, baseline = (shlex.quote(str(path)) for path in (out, beside(recipe, against)))
    return f"onetrunk report {run} --baseline {baseline}"


def shown(document: Mapping[str, Any]) -> rich.table.Table:
    """The result for people: a row for each task, a column for each baseline."""
    runs: Mapping[str, Mapping[str, Any]] = document["runs"]
    table = rich.table.Table(title=f"{document['recipe']}: baselines, scores on test")
    for column in ("domain", "task", "score"):
        table.add_column(column)
    for kind, run in runs.items():
        random = kind == "frozen" and run["weights"] == "fresh"
        table.add_column(f"{kind} (random features)" if random else kind, justify="right")
    for row in document["rows"]:
        cells = [row["values"].get(kind) for kind in runs]
        table.add_row(
            *(row["domain"], row["task"], row["metric"] + spaced(row["unit"])),
            *("" if value is None else number(value, row["unit"]) for value in cells),
        )
    table.add_section()
    means = [run["mean_error"] for run in runs.values()]
    if None not in means:
        table.add_row("mean", "", "error", *(number(mean, "%") for mean in means))
    table.add_row("parameters", "", "networks", *(f"{r['networks']:.2f}×" for r in runs.values()))
    table.add_row("training", "", "seconds", *(f"{run['seconds']:,.0f}" for run in runs.values()))
    return table
