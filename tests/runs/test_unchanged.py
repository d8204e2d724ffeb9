"""Fingerprints of domains: they change with any bit of a domain's outputs, and only then."""

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
    by_name = {domain.name: domain for domain in domains}
    before = fingerprints(model, by_name, "")
    assert before == fingerprints(model, by_name, "")
    assert {p.inputs for p in before.values()} == {"validation"}
    assert [p.images for p in before.values()] == [len(domain.val) for domain in domains]
    bias = model.heads_of("two").head("classify").get_parameter("bias")
    with torch.no_grad():
        bias[0] = torch.nextafter(bias[0], torch.tensor(1e9)) + 1e-4
    after = fingerprints(model, by_name, "")
    assert after["one"] == before["one"]
    assert after["two"] != before["two"]
    with raises(Failed, "new", "outputs of two"):
        check_unchanged(before, after, "new")


def test_noise_replaces_unavailable_images() -> None:
    domains = worlds("one", "two")
    model = network(domains)
    other = more("two", classes="xyz")  # its classes differ from those of the model
    for available in ({}, {"two": other}):
        found = fingerprints(model, available, "")
        assert found["two"].inputs == "random"
        assert "on random images" in str(Unchanged(found))
    assert fingerprints(model, {}, "one").keys() == {"two"}


def test_an_added_or_removed_domain_is_a_change() -> None:
    found = {"one": Fingerprint("0", 3, "validation")}
    with pytest.raises(Failed):
        check_unchanged(found, {}, "new")
    with pytest.raises(Failed):
        check_unchanged({}, found, "new")
    assert "no other domains" in str(check_unchanged({}, {}, "new"))
    assert Unchanged.from_json(Unchanged(found).to_json()).fingerprints == found
