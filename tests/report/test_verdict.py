"""The verdict: every rule, its limits, and its sentence."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from onetrunk.eval.margins import Estimate
from onetrunk.report.verdict import (
    BASELINE,
    ONE_SEED_NOTE,
    RULES,
    Candidate,
    Result,
    TaskComparison,
    Weakness,
    choose,
    decide,
    result_of,
    results_by_domain,
)


def row(domain: str, result: Result, task: str = "classify", paired: bool = True) -> TaskComparison:
    d = {"better": -3.0, "equal": 0.0, "undecided": 1.0, "worse": 9.0}[result]
    one = Estimate(d)
    return TaskComparison(domain, task, one, Estimate(0.0), Estimate(d), 1.0, result, paired)


def candidate(results: str, **keys: Any) -> Candidate:
    """Return a candidate by its results: `"ooww"` is as good on two domains and worse on two."""
    words: dict[str, Result] = {"b": "better", "o": "equal", "?": "undecided", "w": "worse"}
    rows = [row(f"d{i}", words[r]) for i, r in enumerate(results)]
    given: dict[str, Any] = {"size_ratio": 0.25, "domains": len(rows), **keys}
    return Candidate(rows, **given)


@pytest.mark.parametrize(
    ("low", "high", "result"),
    [
        (-2.0, -0.1, "better"),
        (-2.0, 0.0, "equal"),
        (-2.0, 1.0, "equal"),
        (0.2, 0.9, "equal"),
        (-2.0, 1.1, "undecided"),
        (1.0, 3.0, "undecided"),
        (1.1, 3.0, "worse"),
    ],
)
def test_results_at_the_limits(low: float, high: float, result: str) -> None:
    assert result_of(Estimate(0.5, low, high), 1.0) == result
    assert result_of(Estimate(0.5), 1.0) == "undecided"


def test_a_larger_difference_never_has_a_better_result() -> None:
    order = ["better", "equal", "undecided", "worse"]
    for half in (0.1, 0.7, 2.0):
        results = [
            result_of(Estimate(d, d - half, d + half), 1.0) for d in (-3, -1, 0, 0.5, 1, 2, 4)
        ]
        places = [order.index(r) for r in results]
        assert places == sorted(places)


def test_a_domain_has_the_result_of_its_worst_task() -> None:
    order: tuple[Result, ...] = ("better", "equal", "undecided", "worse")
    for first, second in itertools.product(order, repeat=2):
        rows = [row("rooms", first, "a"), row("rooms", second, "b"), row("x", "better")]
        worst = max(first, second, key=order.index)
        assert results_by_domain(rows) == {"rooms": worst, "x": "better"}


SENTENCES = [
    (
        "bo",
        "one network",
        "One network is enough: on both domains, it is as good as the 2 separate networks, at 0.25 "
        "times their size.",
    ),
    (
        "o",
        "one network",
        "One network is enough: on its one domain, it is as good as the separate network, at 0.25 "
        "times their size.",
    ),
    (
        "oo?o",
        "undecided",
        "Undecided: on 1 of 4 domains (d2), the one network may be as good or worse. More seeds or "
        "more test images would show which.",
    ),
    (
        "??",
        "undecided",
        "Undecided: on both domains, the one network may be as good or worse. More seeds or more "
        "test images would show which.",
    ),
    (
        "owo",
        "keep some",
        "Keep 1 of the 3 separate networks (d1); one network is enough for the other 2 domains.",
    ),
    (
        "ow?o?",
        "keep some",
        "Keep 1 of the 5 separate networks (d1); one network is enough for 2 domains; 2 are "
        "undecided.",
    ),
    ("w?", "keep some", "Keep 1 of the 2 separate networks (d0); 1 is undecided."),
    (
        "wwo",
        "keep all",
        "Keep the 3 separate networks: the one network is worse on 2 of 3 domains (d0 and d1).",
    ),
    (
        "wwwwww",
        "keep all",
        "Keep the 6 separate networks: the one network is worse on all 6 domains.",
    ),
    (
        "wwwwwwo",
        "keep all",
        "Keep the 7 separate networks: the one network is worse on 6 of 7 domains (d0, d1, d2 and "
        "3 more).",
    ),
]


@pytest.mark.parametrize(("results", "decision", "sentence"), SENTENCES)
def test_the_sentence(results: str, decision: str, sentence: str) -> None:
    found = decide([candidate(results)])
    assert (found.decision, found.sentence) == (decision, sentence)
    assert found.notes == (ONE_SEED_NOTE,)


def test_one_network_that_is_not_smaller_saves_nothing() -> None:
    found = decide([candidate("oo", size_ratio=1.0)])
    assert found.decision == "keep all"
    assert "1.00 times their size" in found.sentence
    assert decide([candidate("oo", size_ratio=None)]).decision == "one network"


def test_frozen_heads_are_enough() -> None:
    learned, frozen = candidate("oo", val_error=1.0), candidate("ob", frozen=True)
    found = decide([learned, frozen])
    assert (found.decision, found.evaluated) == ("frozen heads", 1)
    assert found.sentence.startswith("Frozen heads are enough: on both domains")
    found = decide([candidate("oo", frozen=True), candidate("ow")])
    assert found.decision == "frozen heads"
    for worse in ("o?", "ow"):
        found = decide([learned, candidate(worse, frozen=True, val_error=0.5)])
        assert (found.decision, found.evaluated) == ("one network", 0)


def test_the_best_on_validation_is_evaluated_regardless_of_test_scores() -> None:
    several = [candidate("oo", val_error=9.0), candidate("ww", val_error=8.0), candidate("oo")]
    assert choose(several) == 1
    assert decide(several).decision == "keep all"
    assert choose([candidate("oo"), candidate("oo")]) == 0
    assert choose([candidate("o", separate=True, val_error=1), candidate("o", val_error=2)]) == 1


def test_the_verdict_is_about_the_chosen_run() -> None:
    several = [candidate("oo", val_error=1.0), candidate("ow"), candidate("oo", frozen=True)]
    assert decide(several).decision == "frozen heads"
    found = [decide(several, chosen=index) for index in range(3)]
    assert [each.evaluated for each in found] == [0, 1, 2]
    assert [each.decision for each in found] == ["one network", "keep some", "frozen heads"]
    lost = [candidate("oo"), candidate("wo", frozen=True, val_error=0.1)]
    assert decide(lost, chosen=1).sentence.startswith("Keep 1 of the 2 separate networks (d0)")
    assert decide(lost, "theirs.csv", chosen=1).sentence.startswith("Worse than theirs.csv")


def test_the_chosen_run_may_be_the_baseline() -> None:
    several = [candidate("ww", val_error=9.0), candidate("oo", val_error=8.0)]
    found = decide(several, chosen=BASELINE)
    assert (found.decision, found.evaluated) == ("keep all", 1)
    assert found.sentence == (
        "Keep the 2 separate networks, chosen over one network by scores on validation images."
    )
    assert decide(several, "theirs.csv", chosen=BASELINE).sentence.startswith("Keep theirs.csv, ")
    weak = decide(several, None, [NEAR], BASELINE)
    assert weak.decision == "keep all" and NEAR.reason in weak.notes[0]


def test_without_a_baseline() -> None:
    found = decide([candidate("", domains=4)])
    assert found.decision == "no baseline"
    assert found.sentence.startswith("One network for 4 domains, 0.25 times the size")
    assert found.notes == ()
    assert (
        "Separate networks for 3 domains"
        in decide([candidate("", domains=3, separate=True)]).sentence
    )


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        ("bo", "As good as theirs.csv on both domains, and better on 1 of 2 domains (d0)."),
        ("ow", "Worse than theirs.csv on 1 of 2 domains (d1)."),
        ("o?", "Undecided: on 1 of 2 domains (d1), it may be as good as theirs.csv or worse. "),
    ],
)
def test_against_a_baseline_that_is_not_separate_networks(results: str, sentence: str) -> None:
    found = decide([candidate(results, size_ratio=3.0, frozen=True)], "theirs.csv")
    assert found.decision == "other"
    assert found.sentence.startswith(sentence)


NEAR = Weakness("d0", "neighbour", "barely better than the nearest neighbour")
SHORT = Weakness("d1", "short", "trained for only 1.2 epochs")


@pytest.mark.parametrize("results", ["oo", "bo", "ow?", "o?"])
def test_a_weak_baseline_makes_the_comparison_meaningless(results: str) -> None:
    found = decide([candidate(results)], None, [NEAR, SHORT])
    assert found.decision == "not meaningful"
    assert "enough:" not in found.sentence and "is enough" not in found.sentence
    assert found.sentence.startswith("Not meaningful yet: on ")
    assert found.sentence.endswith("Train longer, then compare again.")
    text = " ".join(found.notes)
    assert NEAR.reason in text and SHORT.reason in text and ONE_SEED_NOTE in text


def test_a_baseline_near_a_floor_is_named() -> None:
    found = decide([candidate("ooo")], None, [NEAR])
    assert found.sentence == (
        "Not meaningful yet: on 1 of 3 domains (d0), the separate networks are barely better than "
        "predictions without training. Train longer or from pretrained weights, then compare again."
    )
    assert "3 as good" in found.notes[1]
    other = decide([candidate("oo")], "theirs.csv", [NEAR])
    assert "theirs.csv is barely better than predictions without" in other.sentence


def test_a_floor_that_beats_both_sides_is_named() -> None:
    lost = replace(NEAR, reason="not better than the nearest neighbour", not_better=True)
    sentence = (
        "On 1 of 2 domains (d0), neither the one network nor the separate network is better than "
        "the nearest neighbour on pixels."
    )
    for ours, theirs, expected in ((lost, lost, True), (NEAR, lost, False), (lost, NEAR, False)):
        found = decide([candidate("oo", weaknesses=[ours])], None, [theirs])
        assert (sentence == found.notes[0]) is expected
    other = decide([candidate("oo", weaknesses=[lost])], "theirs.csv", [lost])
    assert "nor theirs.csv is better" in other.notes[0]


def test_a_weak_baseline_does_not_weaken_a_loss_against_it() -> None:
    found = decide([candidate("www")], None, [NEAR])
    assert found.decision == "keep all"
    assert NEAR.reason in found.notes[0]


def test_frozen_heads_may_be_as_good_as_well_trained_networks() -> None:
    features = Weakness("d0", "features", "barely better than a linear head on frozen features")
    frozen = candidate("oo", frozen=True)
    assert decide([frozen], None, [features]).decision == "frozen heads"
    assert decide([frozen], None, [features, SHORT]).decision == "not meaningful"


def test_the_one_network_loses_only_if_it_was_trained_long_enough() -> None:
    found = decide([candidate("owo", weaknesses=[SHORT])])
    assert found.decision == "not meaningful"
    assert "d1), the one network is not trained enough" in found.sentence
    for fine in (
        candidate("woo", weaknesses=[SHORT]),  # d1 did not lose
        candidate("owo", weaknesses=[replace(NEAR, domain="d1")]),
    ):
        assert decide([fine]).decision == "keep some"


def test_a_weakness_of_a_domain_that_is_not_compared_does_not_count() -> None:
    found = decide([candidate("oo")], None, [replace(NEAR, domain="elsewhere")])
    assert found.decision == "one network"


def test_notes_state_what_the_intervals_do_not_cover() -> None:
    rows = [row("a", "equal", paired=False), row("b", "equal")]
    found = decide([Candidate(rows, 0.5, seeds=3, domains=2)])
    (note,) = found.notes
    assert "a/classify" in note and "b/" not in note


def test_the_rules_contain_the_numbers_in_use() -> None:
    text = " ".join(RULES)
    for words in (
        "5 % of the separate network's error",
        "at least 0.5 and at most 2 points",
        "fewer than 3 epochs",
        "95 %",
        "more than half",
        "lowest validation error",
    ):
        assert words in text
