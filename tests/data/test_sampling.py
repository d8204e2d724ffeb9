"""Samplers: every image once per epoch, reproducible from any step, domains independent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from onetrunk.data.sampling import SAMPLERS, Draw, Sampler
from onetrunk.data.seeded import Chance, permutation, seed_of
from onetrunk.errors import BadInput
from tests.helpers.errors import raises

SIZES = {"a": 50, "b": 7, "c": 23}
BATCHES = {"a": 8, "b": 8, "c": 5}


def sampler(**more: Any) -> Sampler:
    return Sampler(**{"sizes": SIZES, "batches": BATCHES, "seed": 1, **more})


def same(one: list[Draw], other: list[Draw]) -> bool:
    return len(one) == len(other) and all(
        (a.domain, a.seed) == (b.domain, b.seed)
        and np.array_equal(a.places, b.places)
        and np.array_equal(a.views, b.views)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("kind", ["round-robin", "joined"])
def test_a_step_has_one_batch_of_every_domain_in_order(kind: str) -> None:
    steps = sampler(kind=kind)
    for _ in range(9):
        drawn = steps.next()
        assert [draw.domain for draw in drawn] == ["a", "b", "c"]
        assert [len(draw.places) for draw in drawn] == [8, 8, 5]


def test_joined_draws_the_same_as_round_robin() -> None:
    one, other = sampler(), sampler(kind="joined")
    assert all(same(one.next(), other.next()) for _ in range(20))


def test_the_built_in_samplers_and_what_they_are_able_to_do() -> None:
    assert {name: sampler(kind=name).joined for name in SAMPLERS} == {
        "joined": True,
        "round-robin": False,
        "temperature": False,
    }


class LastOnly:
    """A user's sampler."""

    joined = False

    def domains(
        self, sizes: Mapping[str, int], step: int, seed: int, temperature: float
    ) -> Sequence[str]:
        return list(sizes)[-1:]

    def steps_per_epoch(self, rounds: Sequence[int]) -> int:
        return rounds[-1]


def test_a_users_own_sampler_is_used() -> None:
    steps = sampler(kind=f"{__name__}:LastOnly")
    assert [draw.domain for draw in steps.next()] == ["c"]
    assert steps.steps_per_epoch == 5


@pytest.mark.parametrize("kind", ["round-robin", "temperature"])
def test_every_image_is_drawn_once_per_epoch(kind: str) -> None:
    steps = sampler(kind=kind)
    times: dict[tuple[str, int], Counter[int]] = {}
    for _ in range(200):
        for draw in steps.next():
            for place, view in zip(draw.places.tolist(), draw.views.tolist(), strict=True):
                times.setdefault((draw.domain, view), Counter())[place] += 1
    assert {domain for domain, _ in times} == set(SIZES)
    for name, size in SIZES.items():
        epochs = sorted(view for domain, view in times if domain == name)
        assert epochs == list(range(len(epochs)))
        for view in epochs[:-1]:  # the last one may be incomplete
            assert times[name, view] == dict.fromkeys(range(size), 1)
        assert max(times[name, epochs[-1]].values()) == 1


def test_a_batch_larger_than_its_domain_spans_several_epochs() -> None:
    steps = Sampler({"a": 3}, {"a": 10})
    (draw,) = steps.next()
    assert draw.views.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    for epoch in range(3):
        assert sorted(draw.places[draw.views == epoch]) == [0, 1, 2]


def test_every_epoch_has_another_order() -> None:
    orders = [tuple(permutation(seed_of(1, "a", "order"), epoch, 50)) for epoch in range(5)]
    assert len(set(orders)) == 5
    assert tuple(range(50)) not in orders


def test_the_order_of_a_seed_is_pinned() -> None:
    # other numbers here would mean that a stored run cannot be resumed or repeated
    assert permutation(seed_of(0, "digits", "order"), 3, 8).tolist() == PINNED_ORDER
    drawn = Chance(seed_of(0, "digits", "augment"), [0, 1, 2], [5, 5, 6])(4)
    np.testing.assert_allclose(drawn, PINNED_CHANCE, rtol=1e-12)


PINNED_ORDER = [1, 2, 6, 3, 4, 0, 7, 5]
PINNED_CHANCE = [0.9244130660212725, 0.8888328914180262, 0.863075042932495]


@pytest.mark.parametrize("kind", ["round-robin", "temperature", "joined"])
def test_draws_depend_on_the_seed_alone(kind: str) -> None:
    one, other, third = sampler(kind=kind), sampler(kind=kind), sampler(kind=kind, seed=2)
    differs = False
    for _ in range(30):
        drawn = one.next()
        assert same(drawn, other.next())
        differs |= not same(drawn, third.next())
    assert differs


@pytest.mark.parametrize("seed", [-1, 0, 2**31, 2**63, 2**80])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert sorted(Sampler({"a": 9}, {"a": 9}, seed).next()[0].places) == list(range(9))


@pytest.mark.parametrize("kind", ["round-robin", "temperature", "joined"])
@pytest.mark.parametrize("stop", [0, 1, 5, 17])
def test_a_restored_sampler_continues_with_the_same_draws(kind: str, stop: int) -> None:
    steps = sampler(kind=kind)
    for _ in range(stop):
        steps.next()
    state = json.loads(json.dumps(steps.state()))  # as a checkpoint keeps it
    expected = [steps.next() for _ in range(20)]
    again = sampler(kind=kind)
    again.restore(state)
    assert all(same(again.next(), drawn) for drawn in expected)
    steps.restore(state)  # backwards, too
    assert all(same(steps.next(), drawn) for drawn in expected)


def test_a_state_is_small_and_does_not_change() -> None:
    steps = Sampler({"a": 1_000_000}, {"a": 64})
    steps.next()
    state = steps.state()
    written = json.dumps(state)
    assert len(written) < 200
    steps.next()
    assert json.dumps(state) == written


@pytest.mark.parametrize(
    "other",
    [
        {"sizes": {"a": 50, "b": 7}},
        {"sizes": {**SIZES, "a": 51}},
        {"batches": {**BATCHES, "a": 9}},
        {"seed": 2},
        {"kind": "temperature"},
        {"kind": "temperature", "temperature": 3.0},
    ],
    ids=str,
)
def test_the_state_of_another_sampler_is_refused(other: dict[str, Any]) -> None:
    state = sampler().state()
    with raises(
        BadInput, got=state["given"] if len(other.get("sizes", SIZES)) < 3 else state["plan"]
    ):
        sampler(**other).restore(state)


def test_adding_a_domain_does_not_change_what_another_draws() -> None:
    few = Sampler({"a": 50, "b": 7}, {"a": 8, "b": 8}, 1)
    many = Sampler({"new": 1000, "b": 7, "c": 23, "a": 50}, {"new": 3, **BATCHES}, 1)
    for _ in range(20):
        drawn = {draw.domain: draw for draw in many.next()}
        for draw in few.next():
            assert same([draw], [drawn[draw.domain]])


def test_with_temperature_the_draws_within_a_domain_are_the_same() -> None:
    plain, other = sampler(), sampler(kind="temperature")
    order: dict[str, list[Draw]] = {"a": [], "b": [], "c": []}
    for _ in range(60):
        for draw in plain.next():
            order[draw.domain].append(draw)
    for _ in range(60):
        (draw,) = other.next()
        assert same([draw], [order[draw.domain].pop(0)])


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0, 1e9])
def test_temperature_draws_domains_with_the_documented_probabilities(temperature: float) -> None:
    sizes = {"a": 900, "b": 90, "c": 10}
    steps = Sampler(sizes, dict.fromkeys(sizes, 1), 5, "temperature", temperature)
    n = 4000
    counts = Counter(steps.next()[0].domain for _ in range(n))
    share = np.array(list(sizes.values()), float) ** (1 / temperature)
    share /= share.sum()
    for name, p in zip(sizes, share, strict=True):
        assert abs(counts[name] / n - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_steps_per_epoch() -> None:
    assert sampler().steps_per_epoch == 7  # 50 in batches of 8
    assert sampler(kind="joined").steps_per_epoch == 7
    assert sampler(kind="temperature").steps_per_epoch == 7 + 1 + 5
    steps = sampler()
    drawn = np.concatenate([steps.next()[0].places for _ in range(7)])
    assert set(drawn[:50]) == set(range(50))


@pytest.mark.parametrize(
    ("wrong", "fields"),
    [
        ({"kind": "random"}, {"got": "random", "available": ["round-robin", "temperature"]}),
        ({"sizes": {**SIZES, "b": 0}}, {"got": "0 images, batch 8"}),
        ({"batches": {**BATCHES, "b": 0}}, {"got": "7 images, batch 0"}),
        ({"temperature": 0.0}, {"got": 0.0}),
        ({"temperature": -1.0}, {"got": -1.0}),
    ],
    ids=str,
)
def test_bad_settings_are_refused(wrong: dict[str, Any], fields: dict[str, Any]) -> None:
    with raises(BadInput, **fields):
        sampler(**wrong)


def test_a_temperature_that_is_no_number_is_refused() -> None:
    with raises(BadInput, "temperature", "nan"):
        sampler(temperature=float("nan"))


def test_chance_is_uniform_and_its_lanes_are_independent() -> None:
    n = 50_000
    chance = Chance(3, np.arange(n), np.zeros(n))
    lanes = np.stack([chance(lane) for lane in range(4)] + [Chance(3, np.arange(n), np.ones(n))(0)])
    assert lanes.min() >= 0
    assert lanes.max() < 1
    for lane in lanes:
        counts = np.histogram(lane, 20, (0, 1))[0]
        np.testing.assert_allclose(counts, n / 20, atol=5 * np.sqrt(n / 20))
    assert np.abs(np.corrcoef(lanes) - np.eye(5)).max() < 5 / np.sqrt(n)
    assert (chance(0, 2.0, 2.0) == 2).all()
    between = chance(0, -3, 5)
    assert between.min() >= -3
    assert between.max() < 5


def test_seeds_of_names_with_the_same_letters_differ() -> None:
    assert seed_of(1, "ab", "c") != seed_of(1, "a", "bc")
    assert seed_of(11, "a") != seed_of(1, "1a")
