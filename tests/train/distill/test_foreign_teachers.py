"""Teachers that are not onetrunk networks: modules of the user's, and timm checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
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
from onetrunk.train.distill.foreign import Foreign, ForeignTeacher, TimmCheckpoint
from tests.helpers.errors import UNSET, raises
from tests.helpers.fakes import dense_source
from tests.helpers.worlds import learner, noise, same, settings, worlds

PIXELS = Pixels((6, 6), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


class Net(nn.Module):
    """A small network with layers that must not change while it teaches."""

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


def predict(teacher: Any, domain: Domain, *points: str) -> Any:
    batch = first(domain)
    return teacher.forward(batch.images, batch, points)


def test_images_are_converted_to_its_size_and_normalization() -> None:
    domain = ants()
    received: list[Tensor] = []

    def record(x: Tensor) -> Tensor:
        received.append(x)
        return x

    foreign = Foreign(nn.Flatten(), record, pixels=PIXELS)
    teacher = ForeignTeacher(foreign, domain, ["classify"])
    assert teacher.widths == {"bottleneck": 3}
    predict(teacher, domain, "bottleneck")
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
    torch.testing.assert_close(received[-1], small, rtol=1e-5, atol=1e-6)


def test_classes_are_found_by_name() -> None:
    domain, net = ants(), Net(3)  # of the classes a and b
    teacher = ForeignTeacher(
        Foreign(net, pixels=PIXELS, classes={"classify": "B c A".split()}), domain, ["classify"]
    )
    assert (teacher.predictions, teacher.widths) == (("classify",), {"bottleneck": 5, "pooled": 5})
    found = predict(teacher, domain, "pooled")
    with torch.no_grad():
        plain = net(teacher.converter(first(domain).images))
    assert found.predictions["classify"].equal(plain["classify"][:, [2, 0]])
    assert found.features["pooled"].equal(plain["pooled"])
    assert (
        predict(
            ForeignTeacher(teacher.foreign, domain, ["classify"], logits=False), domain
        ).predictions
        == {}
    )


def test_probabilities_of_equal_names_are_added() -> None:
    domain = ants()
    foreign = Foreign(Net(3), pixels=PIXELS, classes={"classify": [("a", "first"), "b", "A "]})
    found = predict(ForeignTeacher(foreign, domain, ["classify"]), domain).predictions["classify"]
    with torch.no_grad():
        plain = foreign.forward(
            ForeignTeacher(foreign, domain, ["classify"]).converter(first(domain).images)
        )
    expected = plain["classify"].softmax(1)
    torch.testing.assert_close(found.softmax(1)[:, 0], expected[:, 0] + expected[:, 2])


def test_it_stays_frozen() -> None:
    domain, net = ants(), Net(2).train()
    foreign = Foreign(net, pixels=PIXELS, classes={"classify": ["a", "b"]})
    teacher = ForeignTeacher(foreign, domain, ["classify"])
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    made = learner([domain], teachers={"ants": [teacher]}, distill={"teachers": "x"})
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


def test_dense_predictions_have_the_students_size() -> None:
    source = dense_source(8, 10, 10)
    domain = Domain("rooms", source, size=10)
    net = nn.Conv2d(3, 7, 3, 2, 1)

    def forward_dense(x: Tensor) -> Mapping[str, Tensor]:
        y = net(x)
        return {"segment": y[:, :3], "depth": y[:, 3:4], "normals": y[:, 4:], "bottleneck": y}

    classes = {"segment": ["item", "wall", "floor"]}
    tasks = [task.name for task in domain.tasks]
    teacher = ForeignTeacher(
        Foreign(net, forward_dense, pixels=Pixels((8, 8)), classes=classes), domain, tasks
    )
    found = predict(teacher, domain, "bottleneck")
    assert {n: tuple(a.shape) for n, a in found.predictions.items()} == {
        "segment": (4, 3, 10, 10),
        "depth": (4, 1, 10, 10),
        "normals": (4, 3, 10, 10),
    }
    torch.testing.assert_close(found.predictions["normals"].norm(dim=1), torch.ones(4, 10, 10))
    with torch.no_grad():
        plain = forward_dense(teacher.converter(first(domain).images))["segment"][:, [1, 2, 0]]
    wide = nn.functional.interpolate(plain, (10, 10), mode="bilinear")
    torch.testing.assert_close(found.predictions["segment"], wide)


@pytest.mark.parametrize(
    ("function", "facts", "got"),
    [
        (lambda x: x.reshape(2, 3, -1), ["bottleneck", "(B, C)"], "(2, 3, 36) for 2 images"),
        (lambda _: {"pooled": "none"}, ["pooled", "(B, C)"], "str for 2 images"),
        (lambda x: {"classify": x.mean((2, 3))}, ["ants/classify", "3 outputs"], "0 names"),
        (lambda x: {"classify": x}, ["ants/classify", "(B, C)"], (2, 3, 6, 6)),
        (lambda x: x @ torch.zeros(99, 1), ["6×6"], UNSET),
    ],
)
def test_unusable_functions_are_refused_at_once(
    function: Any, facts: list[str], got: object
) -> None:
    foreign = Foreign(nn.Identity(), function, pixels=PIXELS)
    with raises(BadInput, "teacher Identity", *facts, got=got):
        ForeignTeacher(foreign, ants(), ["classify"])


def test_missing_classes_are_named() -> None:
    foreign = Foreign(Net(2), pixels=PIXELS, classes={"classify": ["a", "x"]})
    with raises(BadInput, "ants/classify", got="none for b", available=["a", "x"]):
        ForeignTeacher(foreign, ants(), ["classify"])


# -- timm's


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with weights of small timm networks."""
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
    """Return a domain with two of ImageNet's classes."""
    source = noise(24, ["tabby", "Tench"])
    return Domain("pets", source, size=8)


@pytest.mark.parametrize(("arch", "map_size"), [("test_resnet", 5), ("test_vit", 10)])
def test_timm_predictions_and_features(arch: str, map_size: int, files: Path) -> None:
    domain = pets()
    found = find_teachers(f"timm/{arch}:{arch}.safetensors", [domain], files)
    (teacher,) = found["pets"]
    net: Any = timm.create_model(arch, checkpoint_path=str(files / f"{arch}.safetensors")).eval()
    outputs = predict(teacher, domain, "pooled", "bottleneck")
    config = net.pretrained_cfg
    assert isinstance(teacher, ForeignTeacher)
    assert teacher.foreign.pixels.size == (160, 160)  # timm's own, not the student's
    assert (teacher.foreign.pixels.mean, teacher.foreign.pixels.std) == (
        config["mean"],
        config["std"],
    )
    x = teacher.converter(first(domain).images)
    with torch.no_grad():
        features = net.forward_features(x)
        torch.testing.assert_close(
            outputs.features["pooled"], net.forward_head(features, pre_logits=True)
        )
        logits = net(x)
    # ImageNet: tench is 0, tabby 281; the classes of the domain are in natural order
    assert domain.tasks[0].classes == ("Tench", "tabby")
    torch.testing.assert_close(outputs.predictions["classify"], logits[:, [0, 281]])
    assert outputs.features["bottleneck"].shape[2:] == (map_size, map_size)
    assert teacher.widths == {p: f.shape[1] for p, f in outputs.features.items()}


def test_labels_and_pixels_of_a_file(files: Path) -> None:
    domain = ants()
    checkpoint = TimmCheckpoint("timm/test_resnet:own/w.safetensors", files)
    teacher, notes = checkpoint.of(domain, ["classify"], True)
    assert (teacher.predictions, notes, teacher.name) == (
        ("classify",),
        [],
        "timm/test_resnet:w.safetensors",
    )
    assert checkpoint.pixels.size == (32, 48) and checkpoint.pixels.std == (0.2, 0.2, 0.2)
    places = teacher.places["classify"]
    assert places is not None and places.tolist() == [2, 0]


def test_without_matching_names_it_gives_features_alone(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domain = ants()
    for file in ("test_resnet.safetensors", "seven.safetensors"):
        (teacher,) = find_teachers(f"timm/test_resnet:{file}", [domain], files)["ants"]
        assert (teacher.predictions, teacher.widths["pooled"]) == ((), 96)
    half = Domain("half", noise(24, ["tench", "unheard"]), size=8)
    find_teachers({"half": "timm/test_resnet:test_resnet.safetensors"}, [half], files)
    printed = capsys.readouterr().err
    assert (
        "half/classify: timm/test_resnet:test_resnet.safetensors only provides features" in printed
    )
    assert "unheard" in printed


def test_unusable_files(files: Path) -> None:
    with raises(BadInput, "teacher timm/test_vit", "test_resnet.safetensors"):
        find_teachers("timm/test_vit:test_resnet.safetensors", [ants()], files)
    with raises(BadInput, "teacher timm/test_vit", got="nothing.safetensors"):
        find_teachers("timm/test_vit:nothing.safetensors", [ants()], files)
    with raises(BadInput, got="timm/test_vitt", available=["timm/test_vit"]):
        find_teachers("timm/test_vitt:test_vit.safetensors", [ants()], files)


def test_a_task_that_it_does_not_predict() -> None:
    """It gives features for both tasks, and predictions for the one that has names."""
    tasks = (Task("classify", "classify"), Task("age", "regress"))
    source = noise(24)
    source.tasks = tasks
    source.listed = [
        replace(item, labels={**item.labels, "age": float(place)})
        for place, item in enumerate(source.listed)
    ]
    domain = Domain("ants", source, size=8)
    teacher = ForeignTeacher(
        Foreign(Net(2), pixels=PIXELS, classes={"classify": ["a", "b"]}),
        domain,
        ["classify", "age"],
    )
    made = learner([domain], teachers={"ants": [teacher]}, distill={"teachers": "x"})
    (lesson,) = made.distiller.targets["ants"]
    assert (list(lesson.prediction_losses), list(lesson.feature_weights)) == (
        ["classify"],
        ["classify", "age"],
    )
    assert settings().steps and set(made.step(next(made.passes()))) == {"ants/classify", "ants/age"}
