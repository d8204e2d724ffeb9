"""Fingerprints: they change with any bit of a domain's outputs, and with nothing else."""

from __future__ import annotations

import pytest
import torch

from onetrunk.errors import Failed
from onetrunk.runs.unchanged import Fingerprint, Unchanged, check_unchanged, fingerprints
from tests.helpers.added import more
from tests.helpers.errors import raises
from tests.helpers.worlds import network, worlds


def test_a_changed_bit_changes_the_fingerprint_of_its_domain_alone() -> None:
    domains = worlds("one", "two")
    model = network(domains)
    known = {domain.name: domain for domain in domains}
    before = fingerprints(model, known, "")
    assert before == fingerprints(model, known, "")
    assert {p.inputs for p in before.values()} == {"validation"}
    assert [p.images for p in before.values()] == [len(domain.val) for domain in domains]
    bias = model.heads_of("two").head("classify").get_parameter("bias")
    with torch.no_grad():
        bias[0] = torch.nextafter(bias[0], torch.tensor(1e9)) + 1e-4
    after = fingerprints(model, known, "")
    assert after["one"] == before["one"]
    assert after["two"] != before["two"]
    with raises(Failed, "new", "outputs of two"):
        check_unchanged(before, after, "new")


def test_noise_replaces_images_that_cannot_be_read() -> None:
    domains = worlds("one", "two")
    model = network(domains)
    other = more("two", classes="xyz")  # other classes than the model has
    for known in ({}, {"two": other}):
        found = fingerprints(model, known, "")
        assert found["two"].inputs == "random"
        assert "on random images" in str(Unchanged(found))
    assert fingerprints(model, {}, "one").keys() == {"two"}


def test_a_domain_that_was_added_or_removed_is_a_change() -> None:
    found = {"one": Fingerprint("0", 3, "validation")}
    with pytest.raises(Failed):
        check_unchanged(found, {}, "new")
    with pytest.raises(Failed):
        check_unchanged({}, found, "new")
    assert "no other domain" in str(check_unchanged({}, {}, "new"))
    assert Unchanged.from_json(Unchanged(found).to_json()).fingerprints == found
