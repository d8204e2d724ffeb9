"""What is given in place of a model, a domain or settings is named, with what to give instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import onetrunk as ot
from onetrunk.errors import BadInput
from tests.helpers.errors import raises

TASK = ot.Task("classify", "classify", ("a", "b"))


@pytest.fixture(scope="module")
def domains() -> list[ot.Domain]:
    return [ot.Domain(name, None, [TASK], size=8) for name in ("shop", "parts")]


@pytest.fixture(scope="module")
def model(domains: list[ot.Domain]) -> ot.Universal:
    return ot.Universal(ot.Trunk("resnet20"), domains)


def untyped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function without its types, which these calls contradict."""
    return function


@pytest.mark.parametrize(
    ("given", "got", "try_"),
    [
        (["shop"], "shop", "ot.Domain("),
        ("shop", "shop", "ot.Domain("),
        ({"shop": None}, "dict", "list(domains.values())"),
        (None, "NoneType", "ot.Domain("),
    ],
)
def test_what_is_not_a_domain(
    given: Any, got: str, try_: str, model: ot.Universal, tmp_path: Path
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: untyped(ot.train)(model, given, out=tmp_path / "run"),
        lambda: untyped(ot.evaluate)(model, given),
        lambda: untyped(ot.Universal)(ot.Trunk("resnet20"), given),
    ]
    for call in calls:
        with pytest.raises(BadInput) as caught:
            call()
        assert got in str(caught.value.got) and caught.value.try_ is not None
        assert try_ in caught.value.try_
    assert not (tmp_path / "run").exists()


def test_one_domain_may_be_given_alone(domains: list[ot.Domain]) -> None:
    assert list(ot.Universal(ot.Trunk("resnet20"), domains[0]).domains) == ["shop"]  # type: ignore[arg-type]


def test_domains_that_are_not_those_of_the_model(
    model: ot.Universal, domains: list[ot.Domain], tmp_path: Path
) -> None:
    other = ot.Domain("other", None, [TASK], size=8)
    with raises(BadInput, "without parts", available=["shop", "parts"]):
        ot.train(model, domains[:1], out=tmp_path / "run")
    with raises(BadInput, "with other", try_="add_domain"):
        ot.train(model, [*domains, other], out=tmp_path / "run")
    with raises(BadInput, "once", got="shop"):
        ot.train(model, [*domains, domains[0]], out=tmp_path / "run")


def test_what_is_not_a_model(domains: list[ot.Domain], tmp_path: Path) -> None:
    train, evaluate = untyped(ot.train), untyped(ot.evaluate)
    with raises(BadInput, "ot.Universal", got="Trunk", try_="ot.Universal(trunk, domains)"):
        train(ot.Trunk("resnet20"), domains, out=tmp_path / "run")
    with raises(BadInput, got="runs/one", try_="ot.load('runs/one')"):
        evaluate("runs/one", domains)
    with raises(BadInput, "ot.Trunk", got="resnet20", try_="ot.Trunk('resnet20')"):
        untyped(ot.Universal)("resnet20", domains)


def test_settings_callbacks_and_loggers_of_another_type(
    model: ot.Universal, domains: list[ot.Domain], tmp_path: Path
) -> None:
    train, out = untyped(ot.train), tmp_path / "run"
    with raises(BadInput, "ot.Train", got="dict", try_="ot.Train(**settings)"):
        train(model, domains, out=out, train={"steps": 2})
    with raises(BadInput, "ot.Distill", got="int"):
        train(model, domains, out=out, distill=3)
    for add in (ot.add, ot.update):
        with raises(BadInput, "ot.Train", got="dict"):
            untyped(add)(out, domains[0], train={"steps": 2})


def test_a_run_refuses_domains_that_it_does_not_have(
    model: ot.Universal, domains: list[ot.Domain], tmp_path: Path
) -> None:
    ot.save(model, tmp_path)
    assert ot.Run(tmp_path, domains=domains[:1]).names == ["shop", "parts"]
    with raises(BadInput, got="other", available=["shop", "parts"], try_="ot.add"):
        ot.Run(tmp_path, domains=[ot.Domain("other", None, [TASK], size=8)])
