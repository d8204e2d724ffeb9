"""Figures of compare.json: the decathlon score of each method, and means of errors."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onetrunk.display import Summary
from onetrunk.eval.summary import decathlon_score
from onetrunk.eval.table import number, spaced

SCORE_BASES = ("scratch", "fine-tune")  # the decathlon score is relative to the first of these
SHARES = {"classify", "multilabel", "segment", "embed"}  # kinds whose error is in percent


def method_scores(document: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """Return the base method and the decathlon score of each method relative to it.

    The base is the first of SCORE_BASES that has rows. A score is the mean over the seeds that a
    method and the base have in common. There are no scores without a base, with errors that are not
    in percent, or if the base has an error of 0 in a domain whose errors do not count images.
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
    """Return whether the errors of all new domains are in percent and can be averaged."""
    return all({*kinds} <= SHARES for kinds in document["domains"].values())


def old_mean(document: Mapping[str, Any], method: str) -> float | None:
    """Return a method's mean error over seeds and those own domains with errors in percent."""
    own = {name for name, kinds in document["own"].items() if {*kinds} <= SHARES}
    values = [
        [error for domain, error in row["old"].items() if domain in own]
        for row in document["rows"][method].values()
    ]
    means = [statistics.fmean(each) for each in values if each]
    return statistics.fmean(means) if means else None


def comparison_summary(file: Path, document: Mapping[str, Any]) -> Summary:
    """Return the test errors of the methods on new domains, or the scores of the baselines."""
    if "runs" in document:
        methods = list(document["runs"])
        rows = [
            (
                *(row["domain"], row["task"], row["metric"] + spaced(row["unit"])),
                *(_value(row["values"].get(method), row["unit"]) for method in methods),
            )
            for row in document["rows"]
        ]
        facts = [("recipe", document["recipe"]), ("file", str(file))]
        return Summary("Comparison(baselines)", facts, ("domain", "task", "score", *methods), rows)
    domains = list(document["domains"])
    rows = []
    for name, seeds in document["rows"].items():
        errors = [statistics.fmean(row["errors"][d] for row in seeds.values()) for d in domains]
        old = _value(old_mean(document, name), "%")
        rows.append((name, str(len(seeds)), *(_value(error, "%") for error in errors), old))
    facts = [("run", document["run"]), ("file", str(file))]
    if document["failed"]:
        facts.append(("diverged", ", ".join(document["failed"])))
    columns = ("method", "seeds", *domains, "old domains")
    return Summary("Comparison(new domains, errors on test)", facts, columns, rows)


def _value(value: float | None, unit: str) -> str:
    return "" if value is None else number(value, unit)
