"""What a comparison's rows say: figures of one method, means where they make sense, and scores."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onetrunk.data.task import Task
from onetrunk.eval.metrics import as_error
from onetrunk.eval.summary import decathlon_score
from onetrunk.eval.table import Table
from onetrunk.store.run_folder import METRICS

BASES = ("scratch", "fine-tune")  # whose errors the decathlon score is counted from: the first


@dataclass(frozen=True)
class Found:
    """What one method came to with one seed."""

    errors: Mapping[str, float]  # by new domain, on test
    old: Mapping[str, float]  # of the run's own domains, where the method answers for them
    parameters: int  # that hold the run's domains and the new ones
    bytes: Mapping[str, int]  # that each new domain adds; of one network for all its pack
    seconds: Mapping[str, float]  # of its learning; of one network for all under ""


def scores(document: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The decathlon score of each method over the new domains, mean over the seeds that it has with
    the baseline; and the baseline: the first of BASES that is there. Nothing without one, or where
    its error is 0 in what is not counted in images."""
    rows = document["rows"]
    # half a wrong image is the least only where an error counts images
    counts = {
        domain: document["images"][domain]
        for domain, kinds in document["domains"].items()
        if {*kinds} == {"classify"}
    }
    base = next((name for name in BASES if name in rows), "")
    errors = [pair for row in rows.get(base, {}).values() for pair in row["errors"].items()]
    fair = in_percent(document) and all(error or domain in counts for domain, error in errors)
    found = {}
    for name, seeds in rows.items() if base and fair else ():
        both = [seed for seed in seeds if seed in rows[base]]
        each = [decathlon_score(seeds[s]["errors"], rows[base][s]["errors"], counts) for s in both]
        if each:
            found[name] = statistics.fmean(each)
    return base, found


def in_percent(document: Mapping[str, Any]) -> bool:
    """Whether every domain's error is a share of its images or pixels, so that they have a mean."""
    return all(shares(kinds) for kinds in document["domains"].values())


def shares(kinds: Sequence[str]) -> bool:
    """Whether errors of all these kinds of tasks are in percent."""
    return {*kinds} <= {"classify", "multilabel", "segment", "embed"}


def old_mean(document: Mapping[str, Any], name: str) -> float | None:
    """A method's mean error over the run's own domains whose errors are in percent, and seeds."""
    own = {each for each, kinds in document["own"].items() if shares(kinds)}
    found = [
        [v for d, v in row["old"].items() if d in own] for row in document["rows"][name].values()
    ]
    means = [statistics.fmean(values) for values in found if values]
    return statistics.fmean(means) if means else None


def error_of(table: Table) -> dict[str, float]:
    """The mean error of each domain's headlines."""
    errors: dict[str, list[float]] = {}
    for row in table.headlines():
        errors.setdefault(row.domain, []).append(as_error(row.kind, row.value))
    return {name: statistics.fmean(values) for name, values in errors.items()}


def seconds_of(folder: Path) -> float:
    """Of the learning, as its last line says: what was done before a stop counts, too."""
    try:
        lines = (folder / METRICS).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return 0.0
    found = (json.loads(line).get("seconds") for line in reversed(lines))
    return next((float(each) for each in found if each is not None), 0.0)


def kinds_of(tasks: Sequence[Task]) -> list[str]:
    """What a domain's error is made of."""
    return [task.kind for task in tasks]
