"""Teachers that are no networks of onetrunk's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.data.pixels import Pixels
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.train.distill.find_teachers import find_teachers
from onetrunk.train.distill.foreign import Foreign, Guest
from onetrunk.train.distill.pretrained import Checkpoint
from tests.helpers.fakes import dense_source
from tests.helpers.worlds import learner, noise, same, settings, worlds

PIXELS = Pixels((6, 6), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


class Net(nn.Module):
    """A small network with everything that must not move while it teaches."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.norm = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(5, classes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.drop(self.norm(self.conv(x)))
        pooled = maps.mean((2, 3))
        return {"bottleneck": maps, "pooled": pooled, "classify": self.head(pooled)}


def ants() -> Domain:
    return worlds("ants")[0]


def first(domain: Domain, count: int = 4) -> Batch:
    places = np.arange(count)
    images, targets = domain.train.batch(places)
    return Batch(domain.name, images, targets, places, np.zeros_like(places))


def look(teacher: Any, domain: Domain, *points: str) -> Any:
    batch = first(domain)
    return teacher.forward(batch.images, batch, points)


def test_it_sees_the_students_view_at_its_own_size_and_normalization() -> None:
    domain, seen = ants(), []
    foreign = Foreign(nn.Flatten(), lambda x: (seen.append(x), x)[1], pixels=PIXELS)
    guest = Guest(foreign, domain, ["classify"])
    assert guest.widths == {"bottleneck": 3}
    look(guest, domain, "bottleneck")
    pixels, batch = domain.pixels, first(domain)
    grey = batch.images * torch.tensor(pixels.std).reshape(1, 3, 1, 1)
    grey = grey + torch.tensor(pixels.mean).reshape(1, 3, 1, 1)
    small = nn.functional.interpolate(
        (grey - torch.tensor(PIXELS.mean).reshape(1, 3, 1, 1))
        / torch.tensor(PIXELS.std).reshape(1, 3, 1, 1),
        (6, 6),
        mode="bilinear",
        antialias=True,
    )
    torch.testing.assert_close(seen[-1], small, rtol=1e-5, atol=1e-6)


def test_its_classes_are_picked_out_by_name() -> None:
    domain, net = ants(), Net(3)  # of the classes a and b
    guest = Guest(
        Foreign(net, pixels=PIXELS, classes={"classify": "B c A".split()}), domain, ["classify"]
    )
    assert (guest.predictions, guest.widths) == (("classify",), {"bottleneck": 5, "pooled": 5})
    found = look(guest, domain, "pooled")
    with torch.no_grad():
        plain = net(guest.converter(first(domain).images))
    assert found.predictions["classify"].equal(plain["classify"][:, [2, 0]])
    assert found.features["pooled"].equal(plain["pooled"])
    assert look(Guest(guest.foreign, domain, ["classify"], logits=False), domain).predictions == {}


def test_labels_of_one_name_are_added_up() -> None:
    domain = ants()
    foreign = Foreign(Net(3), pixels=PIXELS, classes={"classify": [("a", "first"), "b", "A "]})
    found = look(Guest(foreign, domain, ["classify"]), domain).predictions["classify"]
    with torch.no_grad():
        plain = foreign.look(Guest(foreign, domain, ["classify"]).converter(first(domain).images))
    said = plain["classify"].softmax(1)
    torch.testing.assert_close(found.softmax(1)[:, 0], said[:, 0] + said[:, 2])


def test_it_is_frozen_whoever_says_train() -> None:
    domain, net = ants(), Net(2).train()
    foreign = Foreign(net, pixels=PIXELS, classes={"classify": ["a", "b"]})
    guest = Guest(foreign, domain, ["classify"])
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    made = learner([domain], teachers={"ants": [guest]}, distill={"teachers": "x"})
    assert not any(p.requires_grad for p in net.parameters())
    moved = made.distiller.parameters["ants"]
    start = {name: p.detach().clone() for name, p in moved.items()}
    for _ in range(2):
        net.train()
        made.model.train()
        made.step(next(made.passes()))
        assert not any(module.training for module in net.modules())
    assert same(before, dict(net.state_dict()))
    assert all(not p.equal(start[name]) for name, p in moved.items()) and moved
    inside = {id(module) for module in made.model.modules()}
    assert not inside & {id(module) for module in net.modules()}


def test_dense_predictions_come_at_the_students_size() -> None:
    source = dense_source(8, 10, 10)
    domain = Domain("rooms", source, size=10)
    net = nn.Conv2d(3, 7, 3, 2, 1)

    def say(x: Tensor) -> Mapping[str, Tensor]:
        y = net(x)
        return {"segment": y[:, :3], "depth": y[:, 3:4], "normals": y[:, 4:], "bottleneck": y}

    classes = {"segment": ["item", "wall", "floor"]}
    tasks = [task.name for task in domain.tasks]
    guest = Guest(Foreign(net, say, pixels=Pixels((8, 8)), classes=classes), domain, tasks)
    found = look(guest, domain, "bottleneck")
    assert {n: tuple(a.shape) for n, a in found.predictions.items()} == {
        "segment": (4, 3, 10, 10),
        "depth": (4, 1, 10, 10),
        "normals": (4, 3, 10, 10),
    }
    torch.testing.assert_close(found.predictions["normals"].norm(dim=1), torch.ones(4, 10, 10))
    with torch.no_grad():
        plain = say(guest.converter(first(domain).images))["segment"][:, [1, 2, 0]]
    wide = nn.functional.interpolate(plain, (10, 10), mode="bilinear")
    torch.testing.assert_close(found.predictions["segment"], wide)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (lambda x: x.reshape(2, 3, -1), r"expected rows \(B, C\) or maps .* at 'bottleneck'"),
        (lambda _: {"pooled": "none"}, r"at 'pooled'; got: 'str of 2"),
        (lambda x: {"classify": x.mean((2, 3))}, "its 3 outputs have no names; got: '0 names'"),
        (lambda x: {"classify": x}, r"expected rows \(B, C\)"),
        (lambda x: x @ torch.zeros(99, 1), "cannot look at images of 6×6; got: "),
    ],
)
def test_what_it_cannot_do_is_found_at_once(said: Any, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        Guest(Foreign(nn.Identity(), said, pixels=PIXELS), ants(), ["classify"])


def test_classes_that_are_not_there_are_named() -> None:
    foreign = Foreign(Net(2), pixels=PIXELS, classes={"classify": ["a", "x"]})
    with pytest.raises(BadInput, match="has the name of a class; got: 'b'; available: a, x"):
        Guest(foreign, ants(), ["classify"])


# -- timm's


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of small networks, as timm's own would lie there."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for arch in ("test_resnet", "test_vit"):
        save_file(timm.create_model(arch).state_dict(), folder / f"{arch}.safetensors")
    (folder / "own").mkdir()
    save_file(
        timm.create_model("test_resnet", num_classes=3).state_dict(), folder / "own/w.safetensors"
    )
    save_file(
        timm.create_model("test_resnet", num_classes=7).state_dict(), folder / "seven.safetensors"
    )
    config = {
        "label_names": ["b", "c", "a"],
        "pretrained_cfg": {"input_size": [3, 32, 48], "mean": [0.1] * 3, "std": [0.2] * 3},
    }
    (folder / "own/config.json").write_text(json.dumps(config))
    return folder


def pets() -> Domain:
    """Two of ImageNet's classes, by two of their names."""
    source = noise(24, ["tabby", "Tench"])
    return Domain("pets", source, size=8)


@pytest.mark.parametrize(("arch", "map_size"), [("test_resnet", 5), ("test_vit", 10)])
def test_timm_predictions_by_names_and_shows_its_maps(
    arch: str, map_size: int, files: Path
) -> None:
    domain = pets()
    found = find_teachers(f"timm/{arch}:{arch}.safetensors", [domain], files)
    (guest,) = found["pets"]
    net = timm.create_model(arch, checkpoint_path=str(files / f"{arch}.safetensors")).eval()
    said = look(guest, domain, "pooled", "bottleneck")
    config = net.pretrained_cfg
    assert guest.foreign.pixels.size == (160, 160)  # timm's own, not the student's
    assert (guest.foreign.pixels.mean, guest.foreign.pixels.std) == (config["mean"], config["std"])
    x = guest.converter(first(domain).images)
    with torch.no_grad():
        features = net.forward_features(x)
        torch.testing.assert_close(
            said.features["pooled"], net.forward_head(features, pre_logits=True)
        )
        logits = net(x)
    # ImageNet: tench is 0, tabby 281; the classes of the domain are in natural order
    assert domain.tasks[0].classes == ("Tench", "tabby")
    torch.testing.assert_close(said.predictions["classify"], logits[:, [0, 281]])
    assert said.features["bottleneck"].shape[2:] == (map_size, map_size)
    assert guest.widths == {p: f.shape[1] for p, f in said.features.items()}


def test_a_file_brings_its_own_labels_and_pixels(files: Path) -> None:
    domain = ants()
    checkpoint = Checkpoint("timm/test_resnet:own/w.safetensors", files)
    guest, notes = checkpoint.of(domain, ["classify"], True)
    assert (guest.predictions, notes, guest.name) == (
        ("classify",),
        [],
        "timm/test_resnet:w.safetensors",
    )
    assert checkpoint.pixels.size == (32, 48) and checkpoint.pixels.std == (0.2, 0.2, 0.2)
    assert guest.places["classify"].tolist() == [2, 0]


def test_without_names_it_teaches_features_alone(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domain = ants()
    for file in ("test_resnet.safetensors", "seven.safetensors"):
        (guest,) = find_teachers(f"timm/test_resnet:{file}", [domain], files)["ants"]
        assert (guest.predictions, guest.widths["pooled"]) == ((), 96)
    half = Domain("half", noise(24, ["tench", "unheard"]), size=8)
    find_teachers({"half": "timm/test_resnet:test_resnet.safetensors"}, [half], files)
    said = capsys.readouterr().err
    assert "half/classify: timm/test_resnet:test_resnet.safetensors teaches features alone" in said
    assert "unheard" in said


def test_files_that_fit_nothing_are_named(files: Path) -> None:
    for text, match in {
        "timm/test_vit:test_resnet.safetensors": "teacher timm/test_vit: .* does not fit",
        "timm/test_vit:nothing.safetensors": "no such file; got: 'nothing.safetensors'",
        "timm/test_vitt:test_vit.safetensors": "unknown timm model; .*available: test_vit",
    }.items():
        with pytest.raises(BadInput, match=match):
            find_teachers(text, [ants()], files)


def test_a_task_it_does_not_answer_keeps_its_labels() -> None:
    """Features for both tasks, answers for the one that has names."""
    tasks = (Task("classify", "classify"), Task("age", "regress"))
    source = noise(24)
    source.tasks = tasks
    for place, item in enumerate(source.listed):
        item.labels["age"] = float(place)
    domain = Domain("ants", source, size=8)
    guest = Guest(
        Foreign(Net(2), pixels=PIXELS, classes={"classify": ["a", "b"]}),
        domain,
        ["classify", "age"],
    )
    made = learner([domain], teachers={"ants": [guest]}, distill={"teachers": "x"})
    (lesson,) = made.distiller.targets["ants"]
    assert (list(lesson.prediction_losses), list(lesson.feature_weights)) == (
        ["classify"],
        ["classify", "age"],
    )
    assert settings().steps and set(made.step(next(made.passes()))) == {"ants/classify", "ants/age"}
