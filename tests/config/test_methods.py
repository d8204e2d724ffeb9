"""The file of methods: every key in it is one that its tables have."""

from __future__ import annotations

import pytest

from onetrunk.config import Distill, Train
from onetrunk.config.growth import Grow
from onetrunk.config.methods import Method, chosen, methods
from onetrunk.config.trunk import TrunkPart
from onetrunk.errors import BadInput
from onetrunk.runs.compare_table import in_percent, scores


def test_every_method_says_what_its_tables_know() -> None:
    for name, method in methods().items():
        Grow.of(method.grow)
        TrunkPart.of(method.trunk)
        Distill.of(method.distill)
        Train.of(method.train)
        assert bool(method.grow) == (method.way == "add"), name
        assert not method.taught or method.taught in methods(), name


def test_teachers_come_with_their_pupils_and_before_them() -> None:
    assert list(chosen(["distilled"])) == ["scratch", "distilled"]
    assert list(chosen(["parallel", "scratch"])) == ["scratch", "parallel"]
    assert chosen([]) == methods()


def test_a_key_that_no_method_has() -> None:
    with pytest.raises(BadInput, match="adapter"):
        Method.of({"what": "x", "way": "add", "adapter": "norm"})


def rows(**errors: float) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    return {name: {"0": {"errors": {"d": error}}} for name, error in errors.items()}


def test_scores_are_counted_from_the_first_baseline_that_is_there() -> None:
    found = rows(scratch=20.0, parallel=10.0)
    document = {"domains": {"d": ["classify"]}, "images": {"d": 100}, "rows": found}
    base, found = scores(document)
    assert base == "scratch"
    # (1 − 20/40)² and (1 − 10/40)² of 1000
    assert found == pytest.approx({"scratch": 250.0, "parallel": 562.5})
    assert scores({**document, "rows": rows(parallel=10.0)}) == ("", {})
    assert scores({**document, "domains": {"d": ["depth"]}})[1] == {}


def test_metres_have_no_mean_with_shares() -> None:
    assert in_percent({"domains": {"a": ["classify"], "b": ["segment", "multilabel"]}})
    assert not in_percent({"domains": {"a": ["classify"], "b": ["depth"]}})
