"""Precomputed features: the student trains on exactly the views that its teacher received."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onetrunk.config import Distill, Train
from onetrunk.data.augment import Augment
from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch, Loader, make_batch
from onetrunk.data.pixels import Pixels
from onetrunk.data.sampling import Fixed, Sampler
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed
from onetrunk.nn.feature_points import Outputs
from onetrunk.runs.train import train
from onetrunk.store.tensors import RowsWriter
from onetrunk.train.device import Precision
from onetrunk.train.distill import precompute as precompute_module
from onetrunk.train.distill.foreign import Foreign
from onetrunk.train.distill.precompute import precompute, write
from onetrunk.train.distill.stored_teachers import StoredTeacher
from onetrunk.train.interrupt import Stop, Stopped
from tests.helpers.errors import raises
from tests.helpers.fakes import Fake, dense_source
from tests.helpers.worlds import CPU, lines, network, noise, same, specialists, weights, worlds

VARIED = Augment(pad=2, flip=True, scale=(0.8, 1.2), brightness=0.2, saturation=0.3)
SAME = Pixels((8, 8))


class PixelTeacher:
    """A teacher whose features are the pixels; it records the images that it received."""

    def __init__(self, size: int = 8) -> None:
        self.name = self.fingerprint = "pixels"
        self.tasks: tuple[str, ...] = ("classify",)
        self.predictions: tuple[str, ...] = ()
        self.widths: Mapping[str, int] = {"pooled": 3 * size * size}
        self.images: dict[tuple[int, int], Tensor] = {}

    def to(self, device: Any, channels_last: bool) -> None:
        pass

    def forward(self, images: Tensor, batch: Batch, points: Any) -> Outputs:
        for image, place, view in zip(images, batch.places, batch.views, strict=True):
            self.images[int(place), int(view)] = image.clone()
        return Outputs({}, {"pooled": images.flatten(1)})


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("augment", [None, VARIED], ids=["default", "varied"])
def test_the_student_receives_the_teachers_views(
    augment: Augment | None, workers: int, tmp_path: Path
) -> None:
    domain = worlds("ants", augment=augment)[0]
    teacher, count = PixelTeacher(), len(domain.train)
    write(tmp_path / "f", teacher, domain, Fixed(3, 99), ["pooled"], Precision(CPU))
    assert len(teacher.images) == 3 * count
    stored = StoredTeacher(tmp_path / "f", domain, ["classify"])
    assert stored.fixed == Fixed(3, 99)
    views = set()
    loader = Loader([domain], 5, seed=1, workers=workers, fixed={"ants": stored.fixed})
    for (batch,) in itertools.islice(loader, 4 * count // 5):
        for image, place, view in zip(batch.images, batch.places, batch.views, strict=True):
            assert image.equal(teacher.images[int(place), int(view)])
            views.add((int(place), int(view)))
        features = stored.forward(batch.images, batch, ["pooled"]).features["pooled"]
        assert features.equal(batch.images.flatten(1).half().float())
    assert views == set(teacher.images)  # later passes use the same views again


def test_views_repeat_and_the_order_of_images_is_unchanged() -> None:
    plain = Sampler({"a": 5, "b": 3}, {"a": 2, "b": 2}, seed=4)
    fixed = Sampler({"a": 5, "b": 3}, {"a": 2, "b": 2}, seed=4, fixed={"a": Fixed(2, 77)})
    for _ in range(12):
        (a, b), (c, d) = plain.next(), fixed.next()
        np.testing.assert_array_equal(a.places, c.places)
        np.testing.assert_array_equal(a.views % 2, c.views)
        assert (c.seed, a.seed != 77) == (77, True)
        np.testing.assert_array_equal(b.views, d.views)
        assert b.seed == d.seed
    with raises(BadInput):
        plain.restore(fixed.state())
    assert plain.state()["plan"] == [[["a", 5, 2], ["b", 3, 2]], "round-robin", 2.0, 4]


def test_stored_outputs_are_the_teachers_in_half_precision(tmp_path: Path) -> None:
    domain = Domain("rooms", dense_source(16, 16, 16), size=16, augment=VARIED)
    teacher = specialists([domain])["rooms"][0]
    fixed = Fixed(2, 5)
    points = ["decoded"]
    write(tmp_path / "f", teacher, domain, fixed, points, Precision(CPU))
    stored = StoredTeacher(tmp_path / "f", domain, teacher.tasks)
    assert (stored.predictions, stored.widths) == (teacher.predictions, {"decoded": 64})
    (batch,) = next(iter(Loader([domain], 4, fixed={"rooms": fixed})))
    expected, found = (t.forward(batch.images, batch, points) for t in (teacher, stored))
    for one, other in (
        (expected.predictions, found.predictions),
        (expected.features, found.features),
    ):
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, rtol=2e-3, atol=2e-3)
            assert other[name].dtype == torch.float32


def test_predicted_numbers_are_stored_in_single_precision(tmp_path: Path) -> None:
    domain = Domain("houses", prices(), size=8)

    def look(x: Tensor) -> dict[str, Tensor]:
        return {"pooled": x.mean((2, 3)), "price": x.mean((1, 2, 3))[:, None] + 3e5}

    guest = Foreign(nn.Identity(), look, pixels=domain.pixels)
    path = precompute(guest, domain, tmp_path / "f", views=1, device="cpu")
    stored = StoredTeacher(path, domain, ["price"])
    assert stored.arrays["predictions/price"].dtype == np.float32
    assert abs(stored.arrays["predictions/price"] - 3e5).max() < 10
    foreign = Foreign(nn.Identity(), lambda x: x.mean((2, 3)) + 3e5, pixels=domain.pixels)
    with raises(Failed, "Identity", "houses", "features/pooled", try_="distill.views = 0"):
        precompute(foreign, domain, tmp_path / "g", views=1, device="cpu")


def prices() -> Fake:
    source = noise(20)
    source.tasks = (Task("price", "regress"),)
    source.listed = [
        replace(item, labels={**item.labels, "price": float(place)})
        for place, item in enumerate(source.listed)
    ]
    return source


SHORT: dict[str, Any] = {"steps": 6, "batch": 8, "eval_every": 3, "optimizer": "sgd", "lr": 0.05}


def train_with_precomputed(place: Path, domains: list[Domain], **distill: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        return train(
            network(domains),
            domains,
            out=place,
            seed=3,
            device="cpu",
            teachers=specialists(domains),
            distill=Distill(features="l2", **distill),
            train=Train(**SHORT),
        )


def test_a_run_precomputes_trains_and_removes_the_files(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    kept = train_with_precomputed(tmp_path / "kept", domains, views=2, keep_views=True)
    files = sorted(p.name for p in (tmp_path / "kept/teachers").iterdir())
    assert files == ["ants-0.safetensors", "bees-0.safetensors"]
    gone = train_with_precomputed(tmp_path / "gone", domains, views=2)
    assert not (tmp_path / "gone/teachers").exists()
    assert same(weights(kept.model), weights(gone.model))
    # the file of one run teaches another of the same seed, to the bit
    again = train(
        network(domains),
        domains,
        out=tmp_path / "again",
        seed=3,
        device="cpu",
        teachers={
            name: f"features:{tmp_path}/kept/teachers/{name}-0.safetensors"
            for name in ("ants", "bees")
        },
        distill=Distill(features="l2"),
        train=Train(**SHORT),
    )
    assert same(weights(kept.model), weights(again.model))


def test_a_run_interrupted_while_precomputing_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = worlds("ants")
    monkeypatch.setattr(precompute_module, "BATCH", 7)
    expected = train_with_precomputed(tmp_path / "uninterrupted", domains, views=4)
    batches: list[int] = []

    def counted(draw: Any, *rest: Any) -> Batch:
        batches.append(len(draw.places))
        if len(batches) == 5:
            raise KeyError("interrupted")
        return make_batch(draw, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(precompute_module, "make_batch", counted)
        patch.setattr(precompute_module, "SAVE_SECONDS", 0.0)
        with pytest.raises(KeyError):
            train_with_precomputed(tmp_path / "run", domains, views=4)
    assert sorted(p.name for p in (tmp_path / "run/teachers").iterdir()) == [
        ".ants-0.safetensors.json",
        ".ants-0.safetensors.part",
    ]
    assert (
        json.loads((tmp_path / "run/teachers/.ants-0.safetensors.json").read_text())["rows"] == 21
    )
    run = train(
        network(domains),
        domains,
        out=tmp_path / "run",
        seed=3,
        resume=True,
        device="cpu",
        teachers=specialists(domains),
        distill=Distill(features="l2", views=4),
        train=Train(**SHORT),
    )
    assert same(weights(run.model), weights(expected.model))
    assert lines(tmp_path / "run") == lines(tmp_path / "uninterrupted")


def test_a_request_to_stop_keeps_what_is_done(tmp_path: Path) -> None:
    domain = worlds("ants")[0]
    teacher = specialists([domain])["ants"][0]
    stop, run = Stop(requested=True), tmp_path
    with raises(Stopped, "64", "ants", try_="--resume"):
        write(tmp_path / "f", teacher, domain, Fixed(4, 1), ["pooled"], Precision(CPU), (stop, run))
    stop.requested = False
    write(tmp_path / "f", teacher, domain, Fixed(4, 1), ["pooled"], Precision(CPU), (stop, run))
    write(tmp_path / "g", teacher, domain, Fixed(4, 1), ["pooled"], Precision(CPU))
    assert (tmp_path / "f").read_bytes() == (tmp_path / "g").read_bytes()


def test_a_file_of_other_views_is_refused(tmp_path: Path) -> None:
    domain = worlds("ants")[0]
    path = precompute(specialists([domain])["ants"][0], domain, tmp_path / "f", views=2)
    StoredTeacher(path, domain, ["classify"])
    others = [
        (["24 images of ants, 28 here"], Domain("ants", noise(44), size=8)),
        (["augment", "flip False, here True"], worlds("ants", flip=True)[0]),
        (
            ["pixels", "mean [", "here [0.5, 0.5, 0.5]; std"],
            worlds("ants", normalize=((0.5,) * 3, (0.5,) * 3))[0],
        ),
        (["pixels", "size [8, 8], here [6, 6]"], worlds("ants", size=6)[0]),
    ]
    for facts, other in others:
        with raises(BadInput, *facts) as caught:
            StoredTeacher(path, other, ["classify"])
        assert len(caught.value.errors) == 1
    with raises(BadInput, path.name, try_="remove it"):
        precompute(specialists([domain])["ants"][0], domain, path, views=3)
    write_other(tmp_path / "other")
    with raises(BadInput, "other", "teacher"):
        StoredTeacher(tmp_path / "other", domain, ["classify"])


def write_other(path: Path) -> None:
    with RowsWriter(path, {"x": ("F16", (1,))}, 1, '{"format": 1}') as file:
        file.write({"x": np.zeros((1, 1))})
        file.finish()


def test_files_that_do_not_fit_are_refused_before_training(tmp_path: Path) -> None:
    domain = worlds("ants")[0]
    two = precompute(specialists([domain])["ants"][0], domain, tmp_path / "two", views=2)
    three = precompute(specialists([domain])["ants"][0], domain, tmp_path / "three", views=3)

    def refused(facts: list[str], *files: Path, mixup: float = 0.0, **distill: Any) -> None:
        with raises(BadInput, *facts):
            train(
                network([domain]),
                [domain],
                out=tmp_path / "run",
                teachers={"ants": [f"features:{file}" for file in files]},
                distill=Distill(features="l2", **distill),
                train=Train(mixup=mixup, steps=1),
            )
        assert not (tmp_path / "run").exists()

    refused(["distill.views", "ants", "2 views", "got: 4"], two, views=4)
    refused(["ants", "2 of seed", " and 3 of seed"], two, three)
    refused(["train.mixup", "ants", "0.2"], two, mixup=0.2)
    refused(["nothing"], tmp_path / "nothing")
    refused(["teacher specialists", "ants", "stem"], two, feature_layers=["stem"])
    with raises(BadInput, "train.mixup", "ants", got=0.2):
        taught_with_mixup(tmp_path / "run", domain)


def taught_with_mixup(place: Path, domain: Domain) -> None:
    train(
        network([domain]),
        [domain],
        out=place,
        teachers=specialists([domain]),
        distill=Distill(views=2),
        train=Train(mixup=0.2, steps=1),
    )


def test_classes_in_another_order_are_reordered(tmp_path: Path) -> None:
    domain = worlds("ants")[0]
    path = precompute(specialists([domain])["ants"][0], domain, tmp_path / "f", views=1)
    plain = StoredTeacher(path, domain, ["classify"])
    turned = worlds("ants")[0]
    turned.__dict__["tasks"] = (domain.tasks[0].with_classes(["b", "a"]),)
    other = StoredTeacher(path, turned, ["classify"])
    (batch,) = next(iter(Loader([domain], 4, fixed={"ants": plain.fixed})))
    a, b = (t.forward(batch.images, batch, []).predictions["classify"] for t in (plain, other))
    assert a.equal(b[:, [1, 0]])
