"""Loss weightings by name, and what is refused before training."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from onetrunk.errors import BadInput, Failed, Missing
from onetrunk.train import weighting as package
from onetrunk.train.weighting import WEIGHTINGS, Setup, make_weighting
from onetrunk.train.weighting._torchjd import NOT_OFFERED, TORCHJD
from tests.helpers.errors import raises

UNITS = ("ants/classify", "bees/depth")


def test_the_registry_lists_each_name_once() -> None:
    names = list(WEIGHTINGS)
    assert len(set(names)) == len(names)
    assert {"equal", "famo", "db-mtl", "pcgrad", "cagrad", "upgrad", "imtl-g"} <= set(names)
    assert set(TORCHJD) <= set(names)
    assert not set(NOT_OFFERED) & set(names)


def test_an_unknown_name_is_refused() -> None:
    with raises(BadInput, got="famu", available=("famo", "dwa", "pcgrad")):
        make_weighting("famu", UNITS)


def test_a_method_of_torchjd_that_is_not_offered_is_refused_with_the_reason() -> None:
    with raises(BadInput, "ecos", "fairgrad", got="nash-mtl", available=("fairgrad",)):
        make_weighting("nash-mtl", UNITS)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("dwa", "temperature", 0),
        ("dwa", "window", 1.5),
        ("dwa", "window", True),
        ("famo", "gamma", "a"),
        ("famo", "lr", float("inf")),
        ("famo", "gamma", -1.0),
        ("stch", "mu", float("inf")),
        ("db-mtl", "beta", 1),
        ("uncertainty", "lr", True),
    ],
)
def test_a_setting_out_of_range_is_refused(name: str, key: str, value: object) -> None:
    with raises(BadInput, f"train.weighting_settings.{key}", got=value) as error:
        make_weighting(name, UNITS, settings={key: value})
    assert "\n" not in str(error.value)


def test_a_setting_that_is_not_a_number_is_refused() -> None:
    with raises(BadInput, "train.weighting_settings.lr", "nan"):
        make_weighting("famo", UNITS, settings={"lr": float("nan")})


def test_a_setting_of_a_torchjd_method_is_checked_before_torchjd_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with raises(BadInput, "train.weighting_settings.c", got=-1):
        make_weighting("cagrad", UNITS, settings={"c": -1})


@pytest.mark.parametrize(
    ("name", "key", "available"), [("dwa", "temprature", ("temperature",)), ("equal", "lr", ())]
)
def test_an_unknown_setting_is_refused(name: str, key: str, available: tuple[str, ...]) -> None:
    with raises(BadInput, "train.weighting_settings", got=key, available=available):
        make_weighting(name, UNITS, settings={key: 1.0})


@pytest.mark.parametrize(("name", "fact"), [("no.such:thing", "no.such"), ("math:thing", "thing")])
def test_an_object_that_cannot_be_imported_is_refused(name: str, fact: str) -> None:
    with raises(BadInput, name, fact):
        make_weighting(name, UNITS)


@pytest.mark.parametrize("name", ["pcgrad", "gradnorm", "db-mtl", "config"])
def test_a_method_on_gradients_needs_two_units(name: str) -> None:
    if name in TORCHJD:
        pytest.importorskip("torchjd")
    with raises(BadInput, name, got="ants/classify", try_="equal"):
        make_weighting(name, UNITS[:1])


@pytest.mark.parametrize("units", [[], ["a/x", "a/x"]])
def test_units_must_be_given_and_unique(units: list[str]) -> None:
    with raises(BadInput, got=units):
        make_weighting("equal", units)


@pytest.mark.parametrize(
    ("name", "module"),
    [("pcgrad", "torchjd.aggregation"), ("cagrad", "cvxpy"), ("upgrad", "scipy")],
)
def test_a_missing_package_is_named(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module != "torchjd.aggregation":
        pytest.importorskip("torchjd.aggregation")
    monkeypatch.setitem(sys.modules, module, None)
    package_name = module.partition(".")[0]
    with raises(Missing, name, package_name, try_="pip install 'onetrunk[torchjd]'"):
        make_weighting(name, UNITS)


def test_a_users_weighting_gets_setup_and_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "users_weighting.py").write_text(
        "from onetrunk.train.weighting import Weighting\n"
        "class Mine(Weighting):\n"
        "    needs_losses = True\n"
        "    def __init__(self, setup, settings):\n"
        "        super().__init__(setup, {})\n"
        "        self.given = settings\n"
        "class Other:\n"
        "    def __init__(self, setup, settings): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    made: Any = make_weighting("users_weighting:Mine", UNITS, seed=3, settings={"a": [1]}, epoch=7)
    assert made.setup == Setup(UNITS, 3, torch.device("cpu"), 7)
    assert made.given == {"a": [1]}
    with raises(BadInput, "users_weighting:Other", "Weighting", got="Other"):
        make_weighting("users_weighting:Other", UNITS)


def test_weights_that_are_not_finite_end_the_run() -> None:
    pytest.importorskip("torchjd")
    made: Any = make_weighting("mgda", UNITS)
    made.method = lambda _: torch.full((2,), torch.nan)
    with raises(Failed, "mgda", "step 1", try_="train.lr"):
        made.weights_from_gram(torch.eye(2), torch.ones(2), (0, 1))


def test_methods_that_a_weighting_does_not_need_are_not_implemented() -> None:
    made = make_weighting("equal", UNITS)
    for call in (made.weights_from_gram, made.combine):
        with pytest.raises(NotImplementedError) as error:
            call(torch.eye(2), torch.ones(2), (0, 1))
        assert "Equal" in str(error.value)
    with pytest.raises(NotImplementedError) as error:
        make_weighting("db-mtl", UNITS).weights(None, (0, 1))
    assert "DualBalancing" in str(error.value)


def test_optional_packages_are_not_imported_at_import_time() -> None:
    for path in sorted(Path(package.__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.partition(".")[0] for n in names} & {"torchjd", "scipy", "cvxpy"}, path
