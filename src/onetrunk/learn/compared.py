"""What a finished comparison says beyond its rows: means where they make sense, and scores."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from onetrunk.measure.summary import decathlon_score

BASES = ("scratch", "fine-tune")  # whose errors the decathlon score is counted from: the first


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
