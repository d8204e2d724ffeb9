"""Figures of compare.json: the decathlon score of each method, and means of errors."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from onetrunk.eval.summary import decathlon_score

SCORE_BASES = ("scratch", "fine-tune")  # the decathlon score is relative to the first of these
SHARES = {"classify", "multilabel", "segment", "embed"}  # kinds whose error is in percent


def method_scores(document: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The decathlon score of each method over the new domains, and the method it is relative to.

    The score is the mean over the seeds that a method has in common with the base, the first of
    SCORE_BASES with rows. There is none without a base, with errors that are not in percent, or
    where the base has no error in a domain whose errors are not counted in images.
    """
    rows = document["rows"]
    # half a wrong image is the smallest error only where an error counts images
    counts = {
        domain: document["images"][domain]
        for domain, kinds in document["domains"].items()
        if {*kinds} == {"classify"}
    }
    base = next((name for name in SCORE_BASES if name in rows), "")
    errors = [pair for row in rows.get(base, {}).values() for pair in row["errors"].items()]
    fair = in_percent(document) and all(error or domain in counts for domain, error in errors)
    scores = {}
    for name, seeds in rows.items() if base and fair else ():
        common = [seed for seed in seeds if seed in rows[base]]
        each = [
            decathlon_score(seeds[s]["errors"], rows[base][s]["errors"], counts) for s in common
        ]
        if each:
            scores[name] = statistics.fmean(each)
    return base, scores


def in_percent(document: Mapping[str, Any]) -> bool:
    """Whether the errors of all new domains are in percent, so that they have a mean."""
    return all({*kinds} <= SHARES for kinds in document["domains"].values())


def old_mean(document: Mapping[str, Any], method: str) -> float | None:
    """A method's mean error over seeds and the run's own domains whose errors are in percent."""
    own = {name for name, kinds in document["own"].items() if {*kinds} <= SHARES}
    values = [
        [error for domain, error in row["old"].items() if domain in own]
        for row in document["rows"][method].values()
    ]
    means = [statistics.fmean(each) for each in values if each]
    return statistics.fmean(means) if means else None
