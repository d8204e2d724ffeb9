"""Summary scores: published results, properties and bad input."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onetrunk.errors import BadInput
from onetrunk.eval.summary import (
    decathlon_points,
    decathlon_score,
    delta_mtl,
    delta_parts,
)
from onetrunk.eval.table import Row, Table
from tests.helpers.errors import raises

DECATHLON = (
    "imagenet aircraft cifar100 daimler dtd gtsr flowers omniglot svhn ucf101".split()
)  # top-1 accuracies in percent, by row of the published tables
FINETUNE = (59.87, 60.34, 82.12, 92.82, 55.53, 97.53, 81.41, 87.69, 96.55, 51.20)
PUBLISHED = {
    "finetune": (FINETUNE, 2500),
    "scratch": ((59.87, 57.10, 75.73, 91.20, 37.77, 96.55, 56.30, 88.74, 96.63, 43.27), 1625),
    "parallel": ((60.32, 64.21, 81.91, 94.73, 58.83, 99.38, 84.68, 89.21, 96.54, 50.94), 3412),
    "best": ((61.45, 74.35, 80.45, 97.55, 59.57, 98.24, 86.73, 89.72, 96.95, 49.01), 3626),
}


def errors(accuracies: tuple[float, ...]) -> dict[str, float]:
    return {name: 100 - a for name, a in zip(DECATHLON, accuracies, strict=True)}


def table(values: dict[str, float], count: int = 1000) -> Table:
    return Table(
        tuple(
            Row(name, "classify", "error", value, count, "classify", "%", "lower", True)
            for name, value in values.items()
        ),
        "test",
    )


@pytest.mark.parametrize("row", PUBLISHED)
def test_published_decathlon_scores(row: str) -> None:
    accuracies, score = PUBLISHED[row]
    assert decathlon_score(errors(accuracies), errors(FINETUNE)) == pytest.approx(score, abs=2)
    tables = table(errors(accuracies)), table(errors(FINETUNE))
    assert decathlon_score(*tables) == pytest.approx(score, abs=2)


def test_published_delta_on_nyu() -> None:
    base: Any = {"miou": (40.54, "higher"), "abs": (0.6276, "lower"), "mean": (24.28, "lower")}
    mine: Any = {"miou": (45.52, "higher"), "abs": (0.4912, "lower"), "mean": (24.57, "lower")}
    assert delta_mtl(mine, base) == pytest.approx(10.95, abs=0.05)
    gains = delta_parts(mine, base)
    assert gains["miou"] > 0 and gains["abs"] > 0 and gains["mean"] < 0

    def as_table(values: Any) -> Table:
        kinds = {"miou": "segment", "abs": "depth", "mean": "normals"}
        return Table(
            tuple(
                Row("nyu", kinds[name], name, value, 654, kinds[name], "", better, True)
                for name, (value, better) in values.items()
            ),
            "test",
        )

    assert delta_mtl(as_table(mine), as_table(base)) == pytest.approx(delta_mtl(mine, base))


def test_by_hand() -> None:
    assert decathlon_points({"a": 0, "b": 5, "c": 20}, {"a": 10, "b": 10, "c": 10}) == {
        "a": 1000,
        "b": 562.5,
        "c": 0,
    }
    assert decathlon_score({"a": 99}, {"a": 10}) == 0  # more than twice the baseline's error


def test_a_baseline_without_errors_counts_as_half_a_wrong_image() -> None:
    mine, base = {"a": 0.02, "b": 5.0}, {"a": 0.0, "b": 10.0}
    with raises(BadInput, "for a,", got="0 %", try_="counts"):
        decathlon_score(mine, base)
    # n = 1000: half an image is 0.05 %, E_max 0.1 %; for b it changes nothing
    points = decathlon_points(mine, base, {"a": 1000, "b": 1000})
    assert points == pytest.approx({"a": 1000 * 0.8**2, "b": 562.5})
    assert decathlon_score(table(mine), table(base)) == pytest.approx(sum(points.values()))
    assert decathlon_score(table(mine), base) == pytest.approx(sum(points.values()))
    assert decathlon_score(mine, table(base)) == pytest.approx(sum(points.values()))
    assert decathlon_score(mine, base, {"a": 1000}) == pytest.approx(sum(points.values()))
    with raises(BadInput, "for a,", got="0 %"):
        decathlon_score(mine, base, {"b": 1000})
    # a baseline of 0.01 % over 1000 images is less than half a wrong one
    assert decathlon_points({"a": 0.0}, {"a": 0.01}, {"a": 1000}) == {"a": 1000}
    assert decathlon_points({"a": 0.05}, {"a": 0.01}, {"a": 1000}) == {"a": pytest.approx(250)}


# the call, and the facts and fields of the error
BAD: dict[str, tuple[Callable[[], object], tuple[str, ...], dict[str, Any]]] = {
    "one domain too many": (
        lambda: decathlon_score({"a": 1, "b": 1}, {"a": 1}),
        ("missing in the baseline",),
        {"got": "b", "available": ["a"]},
    ),
    "one domain too few": (
        lambda: decathlon_score({"a": 1}, {"a": 1, "b": 1}),
        ("missing in ours",),
        {"got": "b", "available": ["a"]},
    ),
    "no domain": (lambda: decathlon_score({}, {}), ("classification domain",), {"got": "none"}),
    "a table without classes": (
        lambda: decathlon_score(Table((), "test"), Table((), "test")),
        ("classification domain",),
        {"got": "none"},
    ),
    "more than 100 percent": (
        lambda: decathlon_score({"a": 101}, {"a": 1}),
        ("for a ",),
        {"got": 101},
    ),
    "no images": (
        lambda: decathlon_score({"a": 1}, {"a": 1}, {"a": 0}),
        ("image of a",),
        {"got": 0},
    ),
    "zero": (
        lambda: delta_mtl({"m": (1, "lower")}, {"m": (0, "lower")}),
        ("above 0 for m",),
        {"got": 0, "try_": "leave this metric out"},
    ),
    "negative": (
        lambda: delta_mtl({"m": (1, "lower")}, {"m": (-1, "lower")}),
        ("above 0 for m",),
        {"got": -1},
    ),
    "two directions": (
        lambda: delta_mtl({"m": (1, "lower")}, {"m": (1, "higher")}),
        ("direction of m",),
        {"got": "lower and higher"},
    ),
    "an unknown direction": (
        lambda: delta_mtl({"m": (1, "up")}, {"m": (1, "up")}),  # type: ignore[dict-item]  # on purpose
        ("for m in scores",),
        {"got": "up", "available": ["higher", "lower"]},
    ),
    "no direction": (lambda: delta_mtl({"m": 1}, {"m": 1}), ("for m in scores",), {"got": 1}),  # type: ignore[dict-item]  # on purpose
    "infinite": (
        lambda: delta_mtl({"m": (float("inf"), "lower")}, {"m": (1, "lower")}),
        ("finite", "for m in scores"),
        {"got": float("inf")},
    ),
    "no metric": (lambda: delta_mtl({}, {}), ("metric in scores",), {"got": "none"}),
    "other metrics": (
        lambda: delta_mtl({"m": (1, "lower")}, {"n": (1, "lower")}),
        ("same metrics",),
        {"got": "m"},
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, facts, fields = BAD[case]
    with raises(BadInput, *facts, **fields):
        call()


def test_nan_is_not_an_error() -> None:
    with raises(BadInput, "for a in baseline_errors", "nan"):
        decathlon_score({"a": 1}, {"a": float("nan")})


PERCENT = st.floats(0.01, 100)


@given(st.lists(st.tuples(PERCENT, PERCENT), min_size=1, max_size=6))
def test_properties_of_the_score(pairs: list[tuple[float, float]]) -> None:
    mine = {f"d{i}": a for i, (a, _) in enumerate(pairs)}
    base = {f"d{i}": b for i, (_, b) in enumerate(pairs)}
    score = decathlon_score(mine, base)
    assert 0 <= score <= 1000 * len(pairs)
    assert decathlon_score(base, base) == pytest.approx(250 * len(pairs))
    assert decathlon_score(dict(reversed(mine.items())), base) == pytest.approx(score)
    assert decathlon_score({d: e / 2 for d, e in mine.items()}, base) >= score


@given(st.dictionaries(st.sampled_from("abcdef"), st.tuples(PERCENT, PERCENT), min_size=1))
def test_properties_of_delta(pairs: dict[str, tuple[float, float]]) -> None:
    def half(which: int, better: str, scale: float = 1) -> Any:
        return {name: (pair[which] * scale, better) for name, pair in pairs.items()}

    up, down = (delta_mtl(half(0, way), half(1, way)) for way in ("higher", "lower"))
    assert up == pytest.approx(-down, abs=1e-9)
    assert delta_mtl(half(1, "lower"), half(1, "lower")) == 0
    scaled = delta_mtl(half(0, "higher", 7), half(1, "higher", 7))
    assert scaled == pytest.approx(up, rel=1e-9, abs=1e-9)  # units do not matter
