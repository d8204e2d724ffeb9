"""What a finished comparison says beyond its rows: means where they make sense, and scores."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from onetrunk.measure.summary import decathlon_score

BASES = ("scratch", "fine-tune")  # whose errors the decathlon score is counted from: the first


def scores(document: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The decathlon score of each method over the new domains, mean over the seeds that it has with
    the baseline; and the baseline: the first of BASES that is there. Nothing without one."""
    rows = document["rows"]
    base = next((name for name in BASES if name in rows), "")
    found = {}
    for name, seeds in rows.items() if base and in_percent(document) else ():
        both = [seed for seed in seeds if seed in rows[base]]
        each = [
            decathlon_score(seeds[s]["errors"], rows[base][s]["errors"], document["images"])
            for s in both
        ]
        if each:
            found[name] = statistics.fmean(each)
    return base, found


def in_percent(document: Mapping[str, Any]) -> bool:
    """Whether every domain's error is a share of its images or pixels, so that they have a mean."""
    kinds = {kind for kinds in document["domains"].values() for kind in kinds}
    return kinds <= {"classify", "multilabel", "segment", "embed"}
