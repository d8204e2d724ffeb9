"""Precomputed features: the student sees, to the bit, what its teacher has seen."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onetrunk.config import Distill, Train
from onetrunk.data.augment import Augment
from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch, Loader
from onetrunk.data.pixels import Pixels
from onetrunk.data.sampling import Fixed, Sampler
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed
from onetrunk.nn.feature_points import Inside
from onetrunk.runs.train import train
from onetrunk.store.tensors import RowsWriter
from onetrunk.train.device import Precision
from onetrunk.train.distill import precompute as views_module
from onetrunk.train.distill.foreign import Foreign
from onetrunk.train.distill.precompute import precompute, write
from onetrunk.train.distill.stored_teachers import Stored
from onetrunk.train.interrupt import Stop, Stopped
from tests.helpers.fakes import dense_source
from tests.helpers.worlds import CPU, lines, network, noise, same, specialists, weights, worlds

VARIED = Augment(pad=2, flip=True, scale=(0.8, 1.2), brightness=0.2, saturation=0.3)
SAME = Pixels((8, 8))


class Notes:
    """A teacher whose features are the pixels themselves."""

    def __init__(self, size: int = 8) -> None:
        self.name, self.tasks, self.predictions = "notes", ("classify",), ()
        self.widths = {"pooled": 3 * size * size}
        self.seen: dict[tuple[int, int], Tensor] = {}

    def to(self, device: Any, channels_last: bool) -> None:
        pass

    def look(self, images: Tensor, batch: Batch, points: Any) -> Inside:
        for image, place, view in zip(images, batch.places, batch.views, strict=True):
            self.seen[int(place), int(view)] = image.clone()
        return Inside({}, {"pooled": images.flatten(1)})


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("augment", [None, VARIED], ids=["usual", "varied"])
def test_the_student_sees_what_the_teacher_saw(
    augment: Augment | None, workers: int, tmp_path: Path
) -> None:
    domain = worlds("ants", augment=augment)[0]
    notes, count = Notes(), len(domain.train)
    write(tmp_path / "f", notes, domain, Fixed(3, 99), ["pooled"], Precision(CPU))
    assert len(notes.seen) == 3 * count
    stored = Stored(tmp_path / "f", domain, ["classify"])
    assert stored.fixed == Fixed(3, 99)
    met = set()
    loader = Loader([domain], 5, seed=1, workers=workers, fixed={"ants": stored.fixed})
    for (batch,) in itertools.islice(loader, 4 * count // 5):
        for image, place, view in zip(batch.images, batch.places, batch.views, strict=True):
            assert image.equal(notes.seen[int(place), int(view)])
            met.add((int(place), int(view)))
        said = stored.look(batch.images, batch, ["pooled"]).features["pooled"]
        assert said.equal(batch.images.flatten(1).half().float())
    assert met == set(notes.seen)  # and the passes after these see them again


def test_views_go_round_and_the_order_of_images_stays() -> None:
    plain = Sampler({"a": 5, "b": 3}, {"a": 2, "b": 2}, seed=4)
    fixed = Sampler({"a": 5, "b": 3}, {"a": 2, "b": 2}, seed=4, fixed={"a": Fixed(2, 77)})
    for _ in range(12):
        (a, b), (c, d) = plain.next(), fixed.next()
        np.testing.assert_array_equal(a.places, c.places)
        np.testing.assert_array_equal(a.views % 2, c.views)
        assert (c.seed, a.seed != 77) == (77, True)
        np.testing.assert_array_equal(b.views, d.views)
        assert b.seed == d.seed
    with pytest.raises(BadInput, match="of other images, batch sizes, sampling or seed"):
        plain.restore(fixed.state())
    assert plain.state()["plan"] == [[["a", 5, 2], ["b", 3, 2]], "round-robin", 2.0, 4]


def test_what_was_stored_teaches_as_the_teacher_itself(tmp_path: Path) -> None:
    """But for half precision: the losses, and every gradient of a step."""
    domain = Domain("rooms", dense_source(16, 16, 16), size=16, augment=VARIED)
    teacher = specialists([domain])["rooms"][0]
    fixed = Fixed(2, 5)
    points = ["decoded"]
    write(tmp_path / "f", teacher, domain, fixed, points, Precision(CPU))
    stored = Stored(tmp_path / "f", domain, teacher.tasks)
    assert (stored.predictions, stored.widths) == (teacher.predictions, {"decoded": 64})
    (batch,) = next(iter(Loader([domain], 4, fixed={"rooms": fixed})))
    expected, found = (t.look(batch.images, batch, points) for t in (teacher, stored))
    for one, other in (
        (expected.predictions, found.predictions),
        (expected.features, found.features),
    ):
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, rtol=2e-3, atol=2e-3)
            assert other[name].dtype == torch.float32


def test_numbers_of_any_unit_are_stored_whole(tmp_path: Path) -> None:
    domain = Domain("houses", prices(), size=8)

    def look(x: Tensor) -> dict[str, Tensor]:
        return {"pooled": x.mean((2, 3)), "price": x.mean((1, 2, 3))[:, None] + 3e5}

    guest = Foreign(nn.Identity(), look, pixels=domain.pixels)
    path = precompute(guest, domain, tmp_path / "f", views=1, device="cpu")
    stored = Stored(path, domain, ["price"])
    assert stored.arrays["predictions/price"].dtype == np.float32
    assert abs(stored.arrays["predictions/price"] - 3e5).max() < 10
    foreign = Foreign(nn.Identity(), lambda x: x.mean((2, 3)) + 3e5, pixels=domain.pixels)
    with pytest.raises(
        Failed, match=r"features/pooled is not finite in half .* distill\.views = 0"
    ):
        precompute(foreign, domain, tmp_path / "g", views=1, device="cpu")


def prices() -> Any:
    source = noise(20)
    source.tasks = (Task("price", "regress"),)
    for place, item in enumerate(source.listed):
        item.labels["price"] = float(place)
    return source


SHORT: dict[str, Any] = {"steps": 6, "batch": 8, "eval_every": 3, "optimizer": "sgd", "lr": 0.05}


def taught(place: Path, domains: list[Domain], **distill: Any) -> Any:
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


def test_a_run_looks_once_learns_and_tidies_up(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    kept = taught(tmp_path / "kept", domains, views=2, keep_views=True)
    files = sorted(p.name for p in (tmp_path / "kept/teachers").iterdir())
    assert files == ["ants-0.safetensors", "bees-0.safetensors"]
    gone = taught(tmp_path / "gone", domains, views=2)
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


def test_a_run_that_stops_while_teachers_look_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = worlds("ants")
    monkeypatch.setattr(views_module, "BATCH", 7)
    whole = taught(tmp_path / "whole", domains, views=4)
    looks: list[int] = []
    real = views_module.make_batch

    def counted(draw: Any, *rest: Any) -> Batch:
        looks.append(len(draw.places))
        if len(looks) == 5:
            raise KeyError("the power is gone")
        return real(draw, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(views_module, "make_batch", counted)
        patch.setattr(views_module, "EVERY", 0.0)
        with pytest.raises(KeyError):
            taught(tmp_path / "run", domains, views=4)
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
    assert same(weights(run.model), weights(whole.model))
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


def test_asked_to_stop_it_keeps_what_it_has(tmp_path: Path) -> None:
    domain = worlds("ants")[0]
    teacher = specialists([domain])["ants"][0]
    stop, run = Stop(requested=True), tmp_path
    with pytest.raises(Stopped, match=r"at view 64 of ants, .* --resume"):
        write(tmp_path / "f", teacher, domain, Fixed(4, 1), ["pooled"], Precision(CPU), (stop, run))
    stop.requested = False
    write(tmp_path / "f", teacher, domain, Fixed(4, 1), ["pooled"], Precision(CPU), (stop, run))
    write(tmp_path / "g", teacher, domain, Fixed(4, 1), ["pooled"], Precision(CPU))
    assert (tmp_path / "f").read_bytes() == (tmp_path / "g").read_bytes()


def test_a_file_of_other_views_is_refused(tmp_path: Path) -> None:
    domain = worlds("ants")[0]
    path = precompute(specialists([domain])["ants"][0], domain, tmp_path / "f", views=2)
    Stored(path, domain, ["classify"])
    others = {
        "its views are of other images": Domain("ants", noise(44), size=8),
        "ants's augment are others .*flip False, here True": worlds("ants", flip=True)[0],
        r"ants's pixels are others .*mean \[.*\], here \[0.5, 0.5, 0.5\]; std": worlds(
            "ants", normalize=((0.5,) * 3, (0.5,) * 3)
        )[0],
        r"size \[8, 8\], here \[6, 6\]": worlds("ants", size=6)[0],
    }
    for match, other in others.items():
        with pytest.raises(BadInput, match=match) as caught:
            Stored(path, other, ["classify"])
        assert len(str(caught.value).split("\n")) == 1
    with pytest.raises(BadInput, match="is there, and holds other views"):
        precompute(specialists([domain])["ants"][0], domain, path, views=3)
    write_other(tmp_path / "other")
    with pytest.raises(BadInput, match="holds no features of a teacher"):
        Stored(tmp_path / "other", domain, ["classify"])


def write_other(path: Path) -> None:
    with RowsWriter(path, {"x": ("F16", (1,))}, 1, '{"format": 1}') as file:
        file.write({"x": np.zeros((1, 1))})
        file.finish()


def test_what_does_not_fit_is_refused_before_training(tmp_path: Path) -> None:
    domain = worlds("ants")[0]
    two = precompute(specialists([domain])["ants"][0], domain, tmp_path / "two", views=2)
    three = precompute(specialists([domain])["ants"][0], domain, tmp_path / "three", views=3)

    def refused(match: str, *files: Path, mixup: float = 0.0, **distill: Any) -> None:
        with pytest.raises(BadInput, match=match):
            train(
                network([domain]),
                [domain],
                out=tmp_path / "run",
                teachers={"ants": [f"features:{file}" for file in files]},
                distill=Distill(features="l2", **distill),
                train=Train(mixup=mixup, steps=1),
            )
        assert not (tmp_path / "run").exists()

    refused("distill.views: ants's file of features has 2 views; got: 4", two, views=4)
    refused("its files of features are of other views; got: '2 of seed .* and 3 of", two, three)
    refused("train.mixup: ants's teachers have looked at images as they are", two, mixup=0.2)
    refused("cannot read nothing", tmp_path / "nothing")
    refused("it has no features to hold against; got: 'stem'", two, feature_layers=["stem"])
    with pytest.raises(BadInput, match=r"train\.mixup"):
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


def test_classes_in_another_order_are_put_right(tmp_path: Path) -> None:
    domain = worlds("ants")[0]
    path = precompute(specialists([domain])["ants"][0], domain, tmp_path / "f", views=1)
    plain = Stored(path, domain, ["classify"])
    turned = worlds("ants")[0]
    turned.__dict__["tasks"] = (domain.tasks[0].with_classes(["b", "a"]),)
    other = Stored(path, turned, ["classify"])
    (batch,) = next(iter(Loader([domain], 4, fixed={"ants": plain.fixed})))
    a, b = (t.look(batch.images, batch, []).predictions["classify"] for t in (plain, other))
    assert a.equal(b[:, [1, 0]])
