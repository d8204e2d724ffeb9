"""A record: all that a run's scores say of one domain, apart, so that it can come and go.

A domain that was grown has a folder with its record (`scores.json`, `outcomes.safetensors`) and its
settings (`recipe.toml`); the run's own scores.json and outcomes.safetensors hold the same again,
beside those of the others, for whoever reads the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.eval.budget import Budget, Cost, DomainCost
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.table import Table
from onetrunk.runs.finish import OUTCOMES
from onetrunk.store.run_folder import SCORES, RunFolder

TABLES = ("val", "test")
PLACED = ("splits", "bad", "own_best", "grown")  # tables of scores.json with an entry a domain


def read_json(path: Path) -> dict[str, Any]:
    """A document of the run; nothing where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"cannot read {path}", got=str(error)[:100]) from None
    return found if isinstance(found, dict) else {}


def of_run(run: Path, name: str) -> dict[str, Any]:
    """The record of one domain as the run's scores.json has it."""
    scores = read_json(run / SCORES)
    record: dict[str, Any] = {"format": 1, "domain": name}
    for split in TABLES:
        if split in scores:
            rows = Table.from_json(scores[split]).rows
            record[split] = Table(tuple(r for r in rows if r.domain == name), split).to_json()
    for key in PLACED:
        if name in scores.get(key, {}):
            record[key] = scores[key][name]
    for cost in scores.get("budget", {}).get("", {}).get("domains", []):
        if cost["name"] == name:
            record["cost"] = cost
    return record


def knows(run: Path, name: str) -> bool:
    """Whether the run's scores speak of this domain."""
    record = of_run(run, name)
    return any(record.get(split, {}).get("rows") for split in TABLES)


def merge(held: RunFolder, name: str, record: Mapping[str, Any] | None) -> None:
    """Put a domain's record into the run's scores, in place of the one there; None: take it out."""
    scores = read_json(held.path / SCORES)
    if not scores:
        return  # a folder of onetrunk.save has no scores
    for split in TABLES:
        rows = [r for r in Table.from_json(scores[split]).rows if r.domain != name]
        if record is not None and split in record:
            rows += Table.from_json(record[split]).rows
        scores[split] = Table(tuple(rows), split).to_json()
    for key in PLACED:
        table = {k: v for k, v in scores.get(key, {}).items() if k != name}
        if record is not None and key in record:
            table[name] = record[key]
        if table or key in scores:
            scores[key] = table
    _budget(scores, name, None if record is None else record.get("cost"))
    held.write(SCORES, scores)


def _budget(scores: dict[str, Any], name: str, cost: Mapping[str, Any] | None) -> None:
    """The run's cost with this domain's, in the words of `Budget`."""
    there = scores.get("budget", {}).get("")
    if there is None:
        return
    costs = [each for each in there["domains"] if each["name"] != name]
    domains = [*costs, *([cost] if cost is not None else [])]
    made = Budget(
        there["arch"],
        Cost(**there["shared"]),
        tuple(
            DomainCost(
                d["name"],
                tuple(d["size"]),
                Cost(**d["own"]),
                Cost(**d["alone"]),
            )
            for d in domains
        ),
    )
    scores["budget"][""] = made.to_json()


def cost_of(budget: Budget, name: str) -> dict[str, Any]:
    """One domain's part of a budget."""
    return next(asdict(domain) for domain in budget.domains if domain.name == name)


def outcomes_of(path: Path, name: str) -> Outcomes | None:
    """One domain's outcomes out of a file; None where it has none."""
    found = _open(path)
    if found is None or name not in found.image_digests:
        return None
    parts = {key: part for key, part in found.tasks.items() if key[0] == name}
    return Outcomes(found.split, parts, {name: found.image_digests[name]})


def merge_outcomes(held: RunFolder, name: str, new: Outcomes | None) -> None:
    """The same of what each image adds."""
    found = _open(held.path / OUTCOMES)
    if found is None:
        return
    parts = {key: part for key, part in found.tasks.items() if key[0] != name}
    names = {key: value for key, value in found.image_digests.items() if key != name}
    if new is not None:
        parts |= new.tasks
        names |= new.image_digests
    with held.writing(OUTCOMES):
        Outcomes(found.split, parts, names).save(held.path / OUTCOMES)


def _open(path: Path) -> Outcomes | None:
    if not path.exists():
        return None
    try:
        return Outcomes.open(path)
    except OnetrunkError:
        return None  # what is damaged is compared with nothing; the report says so
