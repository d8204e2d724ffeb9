"""Averages over views: each kind against a slow average, and the note in tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import evaluate, evaluate_split, plan_batches
from onetrunk.eval.table import Table
from onetrunk.eval.views import Views, predict_views
from onetrunk.nn.universal import Universal
from tests.helpers.errors import raises
from tests.helpers.small import DENSE, domain, network

METRES, NEAR = Task("depth", "depth"), Task("near", "depth", unit="disparity")
UP, PARTS = Task("up", "normals"), Task("parts", "segment", ("a", "b"))
KIND = Task("kind", "classify", ("x", "y"))
ALL = Views((0.5, 1.0, 1.5), mirror=True)


class FunctionModel:
    """A model that computes a function and records the sizes of its inputs."""

    def __init__(self, function: Callable[[Tensor], dict[str, Tensor]]) -> None:
        self.function = function
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, images: Tensor, domain: str) -> dict[str, Tensor]:
        self.sizes.append(tuple(images.shape[-2:]))
        return self.function(images)


def average(
    function: Callable[[Tensor], dict[str, Tensor]], x: Tensor, *tasks: Task, views: Views = ALL
) -> Any:
    return predict_views(cast(Universal, FunctionModel(function)), x, "any", tasks, views)


def test_depth_is_scaled_back() -> None:
    """A network trained at 16 pixels predicts half the distance at twice the size."""

    def camera(x: Tensor) -> dict[str, Tensor]:
        metres = torch.full((len(x), 1, *x.shape[-2:]), 6.0) * 16 / x.shape[-1]
        return {"depth": metres, "near": 1 / metres}

    found = average(camera, torch.randn(2, 3, 12, 16), METRES, NEAR)
    torch.testing.assert_close(found["depth"], torch.full((2, 1, 12, 16), 6.0))
    torch.testing.assert_close(found["near"], torch.full((2, 1, 12, 16), 1 / 6))


def test_normals_are_mirrored_back() -> None:
    """Normals from image gradients are the same with and without mirroring."""

    def slope(x: Tensor) -> dict[str, Tensor]:
        padded = F.pad(x[:, :1], (1, 1, 1, 1), mode="replicate")
        right = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
        up = (padded[..., :-2, 1:-1] - padded[..., 2:, 1:-1]) / 2
        return {"up": F.normalize(torch.cat([right, up, torch.ones_like(up)], 1), dim=1)}

    x = torch.randn(2, 3, 9, 14)
    mirrored = average(slope, x, UP, views=Views(mirror=True))["up"]
    torch.testing.assert_close(mirrored, slope(x)["up"])
    several = average(slope, x, UP)["up"]
    torch.testing.assert_close(several.norm(dim=1), torch.ones(2, 9, 14))
    assert not torch.allclose(several, mirrored)


def test_probabilities_of_classes_are_averaged() -> None:
    def thirds(x: Tensor) -> dict[str, Tensor]:  # 9:1 in the small image, 1:3 in the large ones
        odds = 9.0 if x.shape[-1] < 16 else 1 / 3
        return {
            "parts": torch.tensor([odds, 1.0]).log().view(1, 2, 1, 1).expand(1, 2, *x.shape[2:])
        }

    found = average(thirds, torch.zeros(1, 3, 16, 16), PARTS, views=Views((0.5, 1.0, 2.0)))["parts"]
    share = (0.9 + 0.25 + 0.25) / 3
    torch.testing.assert_close(found.softmax(1)[0, 0], torch.full((16, 16), share))
    torch.testing.assert_close(found.exp().sum(1), torch.ones(1, 16, 16))


def test_tasks_without_maps_are_predicted_once_at_the_images_size() -> None:
    def sizes(x: Tensor) -> dict[str, Tensor]:
        flat = torch.tensor([[float(x.shape[-1]), float(x[0, 0, 0, 0])]])
        return {"kind": flat, "depth": torch.ones(1, 1, *x.shape[-2:])}

    x = torch.arange(3 * 12 * 16.0).view(1, 3, 12, 16)
    for views in (ALL, Views((0.5, 2.0)), Views((2.0,), mirror=True)):
        counting = FunctionModel(sizes)
        found = predict_views(cast(Universal, counting), x, "any", (KIND, METRES), views)
        assert found["kind"].tolist() == [[16, 0]]
        extra = 0 if 1.0 in views.scales else 1
        assert len(counting.sizes) == len(views.scales) * (1 + views.mirror) + extra
    counting = FunctionModel(sizes)
    predict_views(cast(Universal, counting), x, "any", (KIND,), ALL)
    assert counting.sizes == [(12, 16)]


def test_a_table_of_averaged_views_equals_a_slow_average_and_has_a_note() -> None:
    tasks = (*DENSE, KIND)
    rooms = domain("rooms", *tasks, count=10)
    model = network([rooms])
    plain = evaluate(model, [rooms])
    assert evaluate(model, [rooms], scales=(1.0,)) == plain
    table = evaluate(model, [rooms], scales=(0.75, 1), mirror=True)
    note = "maps averaged over scales 0.75, 1, each also mirrored"
    assert table.views == note
    assert plain.views == ""
    assert note in " ".join(str(table).split())
    assert "maps averaged" not in str(plain)
    assert Table.from_json(table.to_json()) == table
    assert "views" not in plain.to_json()
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert {row["views"] for row in rows} == {note}
    assert table.to_latex().startswith(f"% {note}\n")
    assert table.row("rooms", "kind") == plain.row("rooms", "kind")

    x, targets = rooms.test.batch(np.arange(10))
    depths: list[Tensor] = []
    parts: list[Tensor] = []
    for image in x:
        for side in (12, 16):
            view = F.interpolate(image[None], (side, side), mode="bilinear", antialias=True)
            for flip in (False, True):
                with torch.no_grad():
                    out = model(view.flip(-1) if flip else view, "rooms")
                for name, kept in (("depth", depths), ("parts", parts)):
                    one = out[name] if name == "depth" else out[name].softmax(1)
                    one = one.flip(-1) if flip else one
                    one = F.interpolate(one, (16, 16), mode="bilinear", antialias=True)
                    kept.append(one[0] * (side / 16 if name == "depth" else 1))
    metres = torch.stack(depths).view(10, 4, 16, 16).mean(1)
    expected = float((metres - targets["depth"]).abs().mean())
    assert table.value("rooms", "depth") == pytest.approx(expected, rel=1e-4)
    best = torch.stack(parts).view(10, 4, 2, 16, 16).mean(1).argmax(1)
    right = 100 * float((best == targets["parts"]).float().mean())
    assert table.value("rooms", "parts", "pixel_accuracy") == pytest.approx(right, abs=0.1)


def test_a_table_without_maps_has_no_note() -> None:
    flat = domain("flat", KIND, count=6)
    model = network([flat])
    found = evaluate_split(model, [flat], scales=(0.5, 1), mirror=True)
    assert found.views == ""
    assert found.table() == evaluate(model, [flat])


def test_larger_views_have_smaller_batches() -> None:
    rooms = domain("rooms", *DENSE, count=2, size=16)
    card = network([rooms]).domains["rooms"]
    counts = [
        len(plan_batches(card, 5_000, "test", batch=5_000, pixel_ratio=ratio))
        for ratio in (1.0, 64.0)
    ]
    assert counts == [1, 15]


@pytest.mark.parametrize(
    ("scales", "fact"),
    [((), "0.25 to 4"), ((0.1, 1), "0.25 to 4"), ((1, 1.0), "once"), ((math.nan,), "0.25 to 4")],
)
def test_wrong_scales_are_refused(scales: Any, fact: str) -> None:
    with raises(BadInput, fact, got=list(scales)):
        Views(scales)


def test_a_trunk_with_a_fixed_size_has_one_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = domain("rooms", *DENSE, count=4)
    model = network([rooms])
    monkeypatch.setattr(model.trunk.backbone, "size", (16, 16))
    with raises(BadInput, "16×16", "rooms", got=[0.5, 1], try_="mirroring"):
        evaluate(model, [rooms], scales=(0.5, 1))
    evaluate(model, [rooms], mirror=True)
