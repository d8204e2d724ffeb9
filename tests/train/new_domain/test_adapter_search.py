"""The search for adapters within a size budget."""

from __future__ import annotations

from pathlib import Path

from onetrunk.config import Train
from onetrunk.nn.saving import load
from onetrunk.runs.add import add
from tests.helpers.added import FEW, more


def test_the_best_kind_within_the_budget_is_chosen(run: Path) -> None:
    added = add(run, more(), adapters="auto", budget=0.06, train=Train(**FEW))
    tried = added.record["tried"]
    assert tried[0]["adapters"] == "none"
    assert {"norm", "parallel"} <= {t["adapters"] for t in tried}
    assert all(t["share"] <= 0.06 for t in tried)
    assert "series" not in {t["adapters"] for t in tried}  # above the budget
    best = min(tried, key=lambda t: (t["error"], t["bytes"]))
    weights = sum(t.numel() * t.element_size() for t in added.pack.tensors.values())
    assert weights == best["bytes"] < added.record["added"]["bytes"]  # the file has a header
    assert "lowest validation error" in added.record["added"]["chosen"]
    assert load(run).domains["new"].provenance["adapters"] == best["adapters"]
