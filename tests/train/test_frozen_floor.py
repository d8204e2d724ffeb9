"""The floor of frozen features: equal to solved heads, and left out where it takes too long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from onetrunk.data.split import Split
from onetrunk.data.task import Task
from onetrunk.errors import Failed
from onetrunk.nn.universal import Universal
from onetrunk.train import frozen_floor
from onetrunk.train.frozen_floor import features_floor
from tests.helpers.errors import raises
from tests.helpers.small import DENSE, domain, network

MANY = (
    Task("classify", "classify", ("a", "b")),
    Task("tags", "multilabel", ("x", "y", "z")),
    Task("age", "regress"),
    Task("near", "embed", ("p", "q")),
)


def weights(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.items()}


def test_heads_of_every_kind_are_solved_and_the_network_is_unchanged() -> None:
    many = domain("many", *MANY)
    model = network([many])
    before = weights(model.state_dict())
    result = features_floor(model, many, limit=None)
    assert [row.task for row in result.table().headlines()] == [t.name for t in MANY]
    assert result.table().row("many", "classify").count == len(many.test)
    outcomes = result.outcomes()
    assert outcomes.tasks["many", "classify"].images == len(many.test)  # can be paired
    again = features_floor(model, many)
    assert again.table() == result.table()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_linear_head_separates_what_the_features_separate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one_hot(
        _model: Universal, _name: str, images: Split, parts: Sequence[NDArray[np.int64]]
    ) -> Iterator[NDArray[np.float32]]:
        for part in parts:
            yield np.eye(64, dtype=np.float32)[images.label("classify")[part]]

    monkeypatch.setattr(frozen_floor, "pooled_features", one_hot)
    plain = domain("plain")
    assert features_floor(network([plain]), plain).table().value("plain") == 0.0


def test_maps_have_no_such_floor() -> None:
    rooms = domain("rooms", *DENSE)
    assert not features_floor(network([rooms]), rooms).tasks


def test_what_would_take_too_long_is_refused_after_one_batch() -> None:
    plain = domain("plain")
    with raises(Failed, "plain", "would take", try_="onetrunk report RUN --floors all"):
        features_floor(network([plain]), plain, limit=1e-9)
