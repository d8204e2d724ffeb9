"""The margin: a twentieth of the error, between half a point and two."""

from __future__ import annotations

import pytest

from onetrunk.eval.margins import margin_of, scale_of


@pytest.mark.parametrize(
    ("error", "scale", "expected"),
    [
        (0.0, 100.0, 0.5),
        (10.0, 100.0, 0.5),
        (20.0, 100.0, 1.0),
        (40.0, 100.0, 2.0),
        (51.0, 100.0, 2.0),  # a tenth of a large error, 5.1 points, was far too much
        (0.4, 4.0, 0.02),  # metres; the constant prediction is wrong by 4 m
        (0.1, 4.0, 0.02),
        (3.0, 4.0, 0.08),
        (0.4, None, 0.02),
    ],
)
def test_the_margin_of_an_error(error: float, scale: float | None, expected: float) -> None:
    assert margin_of(error, scale) == pytest.approx(expected)


def test_the_scale_is_100_for_percent_and_else_the_error_of_a_constant() -> None:
    assert scale_of("%", 80.0) == 100
    assert scale_of("m", 3.5) == 3.5
    assert scale_of("°", None) is None
    assert scale_of("°", 0.0) is None  # all images have one label
