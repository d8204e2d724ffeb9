"""Loss weightings by name, and what is refused before anything is trained."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import onetrunk.train.weighting as package
from onetrunk.errors import BadInput, Failed, Missing
from onetrunk.train.weighting import OURS, make_weighting, names
from onetrunk.train.weighting.from_torchjd import GRAM, JACOBIAN, ByGram
from onetrunk.train.weighting.protocol import Setup

UNITS = ("ants/classify", "bees/depth")


def test_names_are_all_there_is() -> None:
    assert len(set(names())) == len(names()) == len(OURS) + len(GRAM) + len(JACOBIAN)
    assert {"equal", "famo", "db-mtl", "pcgrad", "cagrad", "upgrad", "imtl-g"} <= set(names())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("famu", {}, r"^unknown weighting; got: 'famu'; available: famo, .*; try: or package"),
        (
            "nash-mtl",
            {},
            "TorchJD's nash-mtl is not offered: its solver ecos is under the GPL; fair",
        ),
        (
            "dwa",
            {"temprature": 1.0},
            "weighting dwa has no such setting; got: 'temprature'; available: t",
        ),
        (
            "equal",
            {"lr": 1.0},
            "weighting equal has no such setting; got: 'lr'; available: nothing",
        ),
        ("dwa", {"temperature": 0}, "weighting dwa: temperature is a number above 0; got: 0"),
        ("dwa", {"window": 1.5}, "weighting dwa: window is a whole number from 0; got: 1.5"),
        ("dwa", {"window": True}, "window is a whole number from 0; got: True"),
        ("famo", {"gamma": "a"}, "weighting famo: gamma is a number from 0; got: 'a'"),
        ("famo", {"lr": float("nan")}, "weighting famo: lr is a number above 0; got: nan"),
        ("stch", {"mu": float("inf")}, "weighting stch: mu is a number above 0; got: inf"),
        ("db-mtl", {"beta": 1}, "weighting db-mtl: beta is a number from 0 to 0.9999; got: 1"),
        ("cagrad", {"c": -1}, "weighting cagrad: c is a number from 0; got: -1"),
        (
            "no.such:thing",
            {},
            "weighting 'no.such:thing': cannot import no.such: .*available: db-mtl",
        ),
        ("math:thing", {}, "weighting 'math:thing': math has no 'thing'"),
    ],
)
def test_what_cannot_be_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        make_weighting(name, UNITS, settings=settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["pcgrad", "gradnorm", "db-mtl", "config"])
def test_gradients_of_one_unit_cannot_be_weightingd(name: str) -> None:
    if name in ("pcgrad", "config"):
        pytest.importorskip("torchjd")
    message = f"{name} needs the gradients of at least two units; got: 'ants/classify'; try: bal"
    with pytest.raises(BadInput, match=message):
        make_weighting(name, UNITS[:1])


@pytest.mark.parametrize("units", [[], ["a/x", "a/x"]])
def test_units_are_some_and_each_once(units: list[str]) -> None:
    with pytest.raises(BadInput, match="at least one unit, each once"):
        make_weighting("equal", units)


@pytest.mark.parametrize(
    ("name", "gone", "message"),
    [
        (
            "pcgrad",
            "torchjd.aggregation",
            "the weighting pcgrad needs the package torchjd; try: pip",
        ),
        (
            "cagrad",
            "cvxpy",
            r"cagrad needs the package cvxpy; try: pip install 'onetrunk\[torchjd\]'",
        ),
        ("upgrad", "scipy", "upgrad needs the package scipy"),
    ],
)
def test_what_is_not_installed_is_named(
    name: str, gone: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if gone != "torchjd.aggregation":
        pytest.importorskip("torchjd.aggregation")
    monkeypatch.setitem(sys.modules, gone, None)
    with pytest.raises(Missing, match=message):
        make_weighting(name, UNITS)


def test_a_weighting_of_ones_own_gets_setup_and_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    needs = 'losses'\n"
        "    def __init__(self, setup, settings):\n        self.given = setup, settings\n"
        "class Vague(Mine):\n    needs = 'luck'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    made: Any = make_weighting("mine:Mine", UNITS, seed=3, settings={"a": [1]}, epoch=7)
    setup, settings = made.given
    assert (setup.units, setup.seed, setup.epoch, settings) == (UNITS, 3, 7, {"a": [1]})
    assert setup.device == torch.device("cpu")
    with pytest.raises(
        BadInput, match="does not say what it needs; available: nothing, losses, after"
    ):
        make_weighting("mine:Vague", UNITS)


def test_solutions_that_are_not_finite_end_the_run() -> None:
    made = ByGram(Setup(UNITS), "mgda", lambda _: torch.full((2,), torch.nan))
    with pytest.raises(Failed, match="mgda found no finite weights in step 1; try: "):
        made.weigh(torch.eye(2), torch.ones(2), (0, 1))


def test_only_what_is_needed_is_there() -> None:
    made = make_weighting("equal", UNITS)
    for call in (made.weigh, made.combine):
        with pytest.raises(NotImplementedError, match="Equal needs nothing"):
            call(torch.eye(2), torch.ones(2), (0, 1))
    with pytest.raises(NotImplementedError, match="DbMtl needs jacobian"):
        make_weighting("db-mtl", UNITS).weights(None, (0, 1))


def test_optional_packages_are_imported_by_nobody_before_they_are_asked_for() -> None:
    for path in sorted(Path(package.__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            found = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {f.partition(".")[0] for f in found} & {"torchjd", "scipy", "cvxpy"}, path
