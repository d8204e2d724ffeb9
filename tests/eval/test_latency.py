"""Latency: the variants that are timed and their order, not their speed."""

import pytest
import torch

from onetrunk.eval.latency import MIN_ROUNDS, latency, medians
from tests.helpers.small import domain, network


def test_every_variant_of_every_row() -> None:
    domains = [domain("a"), domain("b", size=24, seed=1)]
    model = network(domains)
    model.train()
    baseline = {d.name: network([d], sharing="none") for d in domains}
    found = latency(model, baseline, batch=10, seconds=0)
    assert [(row.domain, row.batch) for row in found.rows] == [
        *(("a", 1), ("a", 10), ("b", 1), ("b", 10)),
        ("", 10),
    ]
    for row in found.rows[:4]:
        assert min(row.universal or 0, row.folded or 0, row.separate or 0) > 0
    mixed = found.rows[4]
    assert mixed.folded is None and min(mixed.universal or 0, mixed.separate or 0) > 0
    assert found.trained and found.device == "cpu" and found.threads == torch.get_num_threads()
    assert model.training and model.trunk.training


def test_without_a_baseline_folded_networks_are_the_baseline() -> None:
    domains = [domain("a"), domain("b", seed=1)]
    found = latency(network(domains), batch=4, seconds=0)
    assert not found.trained
    assert all(row.separate is None for row in found.rows[:-1])
    assert found.rows[-1].separate is not None


def test_a_norm_without_statistics_is_not_timed_on_single_images() -> None:
    found = latency(network([domain("a")], norm="shared-batch"), batch=8, seconds=0)
    assert [(row.domain, row.batch) for row in found.rows] == [("a", 8)]


def test_variants_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    clock = iter(range(10_000))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    found = medians(
        {"one": lambda: order.append("1"), "two": lambda: order.append("2")},
        0,
        torch.device("cpu"),
    )
    assert "".join(order) == "12" * (MIN_ROUNDS + 1)
    assert found == {"one": 1000.0, "two": 1000.0}
