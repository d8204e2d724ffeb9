"""The verdict: every rule, its borders, and the sentence that it becomes."""

from __future__ import annotations

import itertools

import pytest

from onetrunk.report.verdict import (
    RULES,
    UNKNOWN_TRAINING,
    Candidate,
    Compared,
    Estimate,
    Reading,
    by_domain,
    choose,
    decide,
    margin,
    read,
)


def row(domain: str, reading: Reading, task: str = "classify", paired: bool = True) -> Compared:
    d = {"better": -3.0, "kept": 0.0, "open": 1.0, "worse": 9.0}[reading]
    one = Estimate(d)
    return Compared(domain, task, one, Estimate(0.0), Estimate(d), 1.0, reading, paired)


def candidate(readings: str, **keys: object) -> Candidate:
    """`"ooww"`: two domains that are as good, two that are worse."""
    words: dict[str, Reading] = {"b": "better", "o": "kept", "?": "open", "w": "worse"}
    rows = [row(f"d{i}", words[r]) for i, r in enumerate(readings)]
    given = {"size": 0.25, "domains": len(rows), **keys}
    return Candidate("shop", rows, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("unit", "error", "expected"),
    [("%", 2.0, 1.0), ("%", 30.0, 3.0), ("%", 0.0, 1.0), ("m", 0.4, 0.04), ("", 2.0, 0.2)],
)
def test_margin(unit: str, error: float, expected: float) -> None:
    assert margin(unit, error) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high", "reading"),
    [
        (-2.0, -0.1, "better"),
        (-2.0, 0.0, "kept"),
        (-2.0, 1.0, "kept"),
        (0.2, 0.9, "kept"),
        (-2.0, 1.1, "open"),
        (1.0, 3.0, "open"),
        (1.1, 3.0, "worse"),
    ],
)
def test_reading_at_the_borders(low: float, high: float, reading: str) -> None:
    assert read(Estimate(0.5, low, high), 1.0) == reading
    assert read(Estimate(0.5), 1.0) == "open"


def test_a_larger_difference_never_reads_better() -> None:
    order = ["better", "kept", "open", "worse"]
    for half in (0.1, 0.7, 2.0):
        readings = [read(Estimate(d, d - half, d + half), 1.0) for d in (-3, -1, 0, 0.5, 1, 2, 4)]
        places = [order.index(r) for r in readings]
        assert places == sorted(places)


def test_a_domain_is_its_worst_task() -> None:
    for first, second in itertools.product(("better", "kept", "open", "worse"), repeat=2):
        rows = [row("rooms", first, "a"), row("rooms", second, "b"), row("x", "better")]  # type: ignore[arg-type]
        worst = max(first, second, key=["better", "kept", "open", "worse"].index)
        assert by_domain(rows) == {"rooms": worst, "x": "better"}


SENTENCES = [
    (
        "bo",
        "one",
        "One network is enough: on both domains it is as good as the 2 separate networks, at 0.25 "
        "times their size.",
    ),
    (
        "o",
        "one",
        "One network is enough: on its one domain it is as good as the separate network, at 0.25 "
        "times their size.",
    ),
    (
        "oo?o",
        "open",
        "Not decided: on 1 of 4 domains (d2) the one network may be as good or worse; more seeds "
        "or more test images would tell.",
    ),
    (
        "??",
        "open",
        "Not decided: on both domains the one network may be as good or worse; more seeds or more "
        "test images would tell.",
    ),
    (
        "owo",
        "some",
        "Keep 1 of the 3 separate networks (d1); one network is enough for the other 2.",
    ),
    (
        "ow?o?",
        "some",
        "Keep 1 of the 5 separate networks (d1); one network is enough for 2; 2 are not decided.",
    ),
    ("w?", "some", "Keep 1 of the 2 separate networks (d0); 1 is not decided."),
    (
        "wwo",
        "keep",
        "Keep the 3 separate networks: the one network is worse on 2 of 3 domains (d0 and d1).",
    ),
    (
        "wwwwww",
        "keep",
        "Keep the 6 separate networks: the one network is worse on all 6 domains.",
    ),
    (
        "wwwwwwo",
        "keep",
        "Keep the 7 separate networks: the one network is worse on 6 of 7 domains (d0, d1, d2 and "
        "3 more).",
    ),
]


@pytest.mark.parametrize(("readings", "prediction", "sentence"), SENTENCES)
def test_the_sentence(readings: str, prediction: str, sentence: str) -> None:
    found = decide([candidate(readings)])
    assert (found.prediction, found.sentence) == (prediction, sentence)
    assert found.notes == (UNKNOWN_TRAINING,)


def test_one_network_that_is_no_smaller_saves_nothing() -> None:
    found = decide([candidate("oo", size=1.0)])
    assert found.prediction == "keep"
    assert "1.00 times their size" in found.sentence
    assert decide([candidate("oo", size=None)]).prediction == "one"


def test_frozen_heads_where_they_are_enough() -> None:
    learned, frozen = candidate("oo", chosen_by=1.0), candidate("ob", frozen=True)
    found = decide([learned, frozen])
    assert (found.prediction, found.evaluated) == ("frozen", 1)
    assert found.sentence.startswith("Frozen heads are enough: on both domains")
    found = decide([candidate("oo", frozen=True), candidate("ow")])
    assert found.prediction == "frozen"
    for worse in ("o?", "ow"):
        found = decide([learned, candidate(worse, frozen=True, chosen_by=0.5)])
        assert (found.prediction, found.evaluated) == ("one", 0)


def test_the_best_on_validation_is_evaluated_whatever_the_test_says() -> None:
    several = [candidate("oo", chosen_by=9.0), candidate("ww", chosen_by=8.0), candidate("oo")]
    assert choose(several) == 1
    assert decide(several).prediction == "keep"
    assert choose([candidate("oo"), candidate("oo")]) == 0
    assert choose([candidate("o", separate=True, chosen_by=1), candidate("o", chosen_by=2)]) == 1


def test_without_a_baseline() -> None:
    found = decide([candidate("", domains=4)])
    assert found.prediction == "alone"
    assert found.sentence.startswith("One network for 4 domains at 0.25 times the size")
    assert found.notes == ()
    assert (
        "Separate networks for 3 domains"
        in decide([candidate("", domains=3, separate=True)]).sentence
    )
    assert "not finished" in decide([candidate("", domains=0)]).sentence


@pytest.mark.parametrize(
    ("readings", "sentence"),
    [
        ("bo", "As good as theirs.csv on both domains, and better on 1 of 2 domains (d0)."),
        ("ow", "Worse than theirs.csv on 1 of 2 domains (d1)."),
        ("o?", "Not decided: on 1 of 2 domains (d1) it may be as good as theirs.csv or worse; "),
    ],
)
def test_against_something_else_than_separate_networks(readings: str, sentence: str) -> None:
    found = decide([candidate(readings, size=3.0, frozen=True)], "theirs.csv")
    assert found.prediction == "other"
    assert found.sentence.startswith(sentence)


def test_notes_say_what_the_intervals_do_not_know() -> None:
    rows = [row("a", "kept", paired=False), row("b", "kept")]
    found = decide([Candidate("x", rows, 0.5, seeds=3, domains=2)])
    (note,) = found.notes
    assert "a/classify" in note and "b/" not in note


def test_the_rules_name_the_numbers_that_are_used() -> None:
    text = " ".join(RULES)
    for words in ("1 point", "a tenth", "95 %", "more than half", "lowest validation error"):
        assert words in text
