"""The file of methods: its keys, its teachers, and the scores of the table."""

from __future__ import annotations

import pytest

from onetrunk.config import Distill, Train
from onetrunk.config.add_recipe import AddSettings
from onetrunk.config.methods import Method, choose_methods, methods
from onetrunk.errors import BadInput
from onetrunk.nn.trunk_settings import TrunkSettings
from onetrunk.runs.compare_figures import in_percent, method_scores
from tests.helpers.errors import raises


def test_every_method_has_valid_keys() -> None:
    for name, method in methods().items():
        AddSettings.of(method.add)
        TrunkSettings.of(method.trunk)
        Distill.of(method.distill)
        Train.of(method.train)
        assert bool(method.add) == (method.kind == "add"), name
        assert not method.teachers or method.teachers in methods(), name


def test_the_teachers_of_a_method_are_chosen_with_it() -> None:
    assert list(choose_methods(["distilled"])) == ["scratch", "distilled"]
    assert list(choose_methods(["parallel", "scratch"])) == ["scratch", "parallel"]
    assert choose_methods([]) == methods()


def test_unknown_keys_and_methods() -> None:
    with raises(BadInput, place="adapter", got="adapter", available=["add"]):
        Method.of({"description": "x", "kind": "add", "adapter": "norm"})
    with raises(BadInput, got="distiled", available=["distilled"]):
        choose_methods(["distiled"])


def rows(**errors: float) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    return {name: {"0": {"errors": {"d": error}}} for name, error in errors.items()}


def test_scores_are_relative_to_the_first_available_baseline() -> None:
    document = {
        "domains": {"d": ["classify"]},
        "images": {"d": 100},
        "rows": rows(scratch=20.0, parallel=10.0),
    }
    base, scores = method_scores(document)
    assert base == "scratch"
    # (1 − 20/40)² and (1 − 10/40)² of 1000
    assert scores == pytest.approx({"scratch": 250.0, "parallel": 562.5})
    assert method_scores({**document, "rows": rows(parallel=10.0)}) == ("", {})
    assert method_scores({**document, "domains": {"d": ["depth"]}})[1] == {}


def test_errors_in_metres_and_percent_have_no_mean() -> None:
    assert in_percent({"domains": {"a": ["classify"], "b": ["segment", "multilabel"]}})
    assert not in_percent({"domains": {"a": ["classify"], "b": ["depth"]}})
