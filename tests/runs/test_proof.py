"""The proof: a number a domain that changes with any bit of its outputs, and with nothing else."""

from __future__ import annotations

import pytest
import torch

from onetrunk.errors import Failed
from onetrunk.runs import proof
from tests.helpers.added import more
from tests.helpers.worlds import network, worlds


def test_a_bit_that_moves_is_seen_in_its_domain_alone() -> None:
    domains = worlds("one", "two")
    model = network(domains)
    known = {domain.name: domain for domain in domains}
    before = proof.take(model, known, "")
    assert before == proof.take(model, known, "")
    assert {p.of for p in before.values()} == {proof.VALIDATION}
    assert [p.images for p in before.values()] == [len(domain.val) for domain in domains]
    bias = model.heads_of("two").head("classify").bias
    with torch.no_grad():
        bias[0] = torch.nextafter(bias[0], torch.tensor(1e9)) + 1e-4
    after = proof.take(model, known, "")
    assert after["one"] == before["one"]
    assert after["two"] != before["two"]
    with pytest.raises(Failed, match="outputs of two are not the same"):
        proof.compare(before, after, "new")


def test_images_that_cannot_be_reached_are_replaced_by_noise_and_that_is_said() -> None:
    domains = worlds("one", "two")
    model = network(domains)
    gone = more("two", classes="xyz")  # other classes than the model learned
    for known in ({}, {"two": gone}):
        found = proof.take(model, known, "")
        assert found["two"].of == proof.RANDOM
        assert "on random images" in proof.Proof(found).said
    assert proof.take(model, {}, "one").keys() == {"two"}


def test_a_domain_that_came_or_went_is_no_proof() -> None:
    found = {"one": proof.Print("0", 3, proof.VALIDATION)}
    with pytest.raises(Failed):
        proof.compare(found, {}, "new")
    with pytest.raises(Failed):
        proof.compare({}, found, "new")
    assert "no other domain" in proof.compare({}, {}, "new").said
    assert proof.Proof.from_json(proof.Proof(found).to_json()).prints == found
