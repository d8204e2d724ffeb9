"""Domains without labels, which are trained from teachers only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from onetrunk.config import Distill, Train
from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
from onetrunk.data.split import Split
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import evaluate
from onetrunk.nn.saving import load
from onetrunk.runs.train import train
from onetrunk.testing.models import perturb
from onetrunk.train.distill.foreign import Foreign
from tests.helpers.errors import raises
from tests.helpers.fakes import encoded, picture
from tests.helpers.worlds import network, same, weights, worlds

CLASSES = {"classify": {"kind": "classify", "classes": ["a", "b"]}}
SHORT: dict[str, Any] = {"steps": 4, "batch": 8, "eval_every": 2, "optimizer": "sgd", "lr": 0.05}


def heap(folder: Path, count: int = 40) -> Path:
    """Write images into two folders, whose names are not classes."""
    for i in range(count):
        path = folder / ("one" if i % 2 else "two") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(i, 8, 8)))
    return folder


def web(folder: Path, tasks: Any = None, count: int = 40) -> Domain:
    return Domain("web", f"unlabelled:{heap(folder / 'web', count)}", tasks, size=8)


def test_images_have_no_labels(tmp_path: Path) -> None:
    domain = web(tmp_path, {**CLASSES, "maps": {"kind": "segment", "classes": ["x", "y"]}})
    assert sum(len(split) for split in domain.splits.values()) == 40
    assert (domain.train.label("classify") == -1).all()
    _, targets = domain.train.batch(np.arange(2))
    assert (targets["maps"] == 255).all()
    assert [task.name for task in web(tmp_path / "b").tasks] == ["embed"]
    assert domain.index.warnings == []


def test_splits_are_read_from_folders(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("valid", 2), ("test", 3)):
        heap(tmp_path / split, count)
    domain = Domain("web", f"unlabelled:{tmp_path}", CLASSES, size=8)
    assert [len(s) for s in domain.splits.values()] == [5, 2, 3]


def test_unusable_sources_are_refused(tmp_path: Path) -> None:
    heap(tmp_path / "web")
    (tmp_path / "nothing").mkdir()
    for source, tasks, facts in (
        ("web", ["classify"], ["classify"]),
        ("nothing", None, ["unlabelled:nothing"]),
        ("web/one/1.png", None, ["1.png"]),
    ):
        with raises(BadInput, *facts):
            _ = Domain("web", f"unlabelled:{source}", tasks, size=8, base=tmp_path).index


def a_teacher() -> Any:
    """A network with these classes, for a domain of another name."""
    model = network([Domain("shop", None, CLASSES, size=8)], seed=9)
    perturb(model, 8, 9)
    return model.eval()


def test_it_is_trained_from_predictions_alone(tmp_path: Path) -> None:
    """The student's predictions approach the teacher's."""
    domain = web(tmp_path, CLASSES)
    teacher, student = a_teacher(), network([domain])
    images, _ = domain.train.batch(np.arange(len(domain.train)))

    def distance(model: Any) -> float:
        with torch.no_grad():
            t = teacher(images, "shop")["classify"].softmax(1)
            return float((model(images, "web")["classify"].softmax(1) - t).abs().mean())

    before = distance(student.eval())
    run = train(
        student,
        [domain],
        out=tmp_path / "run",
        device="cpu",
        teachers={"web": teacher},
        distill=Distill(features="l2", temperature=1.0),
        train=Train(**{**SHORT, "steps": 120, "eval_every": 20, "lr": 0.01}),
    )
    assert distance(run.model.eval()) < 0.5 * before
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert scores["best"] == {"": {"step": 120, "score": None}}  # the last step
    assert scores["test"]["rows"] == []
    assert evaluate(run.model, [domain]).rows == ()
    assert same(weights(load(tmp_path / "run")), weights(run.model.eval()))


def test_features_alone_train_it_beside_a_domain_with_labels(tmp_path: Path) -> None:
    domains = [*worlds("ants"), web(tmp_path)]
    foreign = Foreign(nn.Conv2d(3, 6, 3), lambda x: x.mean((2, 3)), pixels=Pixels((8, 8)))
    run = train(
        network(domains),
        domains,
        out=tmp_path / "run",
        device="cpu",
        teachers={"web": foreign},
        distill=Distill(features="cosine"),
        train=Train(**SHORT),
    )
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert scores["teachers"]["web"] == [
        {
            "teacher": "Conv2d",
            "predictions": [],
            "features": [["pooled", "pooled"]],
            "loss": "cosine",
        }
    ]
    assert scores["teachers"]["ants"] == []
    assert scores["best"][""]["score"] is not None  # chosen on the ants
    assert {row.domain for row in run.table.rows} == {"ants"}


@pytest.mark.parametrize("weighting", ["uncertainty", "stch", "famo"])
def test_tasks_without_labels_are_not_weighted(tmp_path: Path, weighting: str) -> None:
    """Only one unit has labels, so every weighting gives the plain loss."""
    domains = [*worlds("ants"), web(tmp_path)]
    foreign = Foreign(nn.Conv2d(3, 6, 3), lambda x: x.mean((2, 3)), pixels=Pixels((8, 8)))
    found = {}
    for name in ("equal", weighting):
        found[name] = train(
            network(domains),
            domains,
            out=tmp_path / name,
            device="cpu",
            teachers={"web": foreign},
            distill=Distill(features="cosine"),
            train=Train(weighting=name, **SHORT),
        ).model
    ours, plain = weights(found[weighting]), weights(found["equal"])
    for key, tensor in plain.items():
        torch.testing.assert_close(ours[key], tensor, atol=1e-5, rtol=1e-4, msg=key)
    lines = (tmp_path / weighting / "metrics.jsonl").read_text().splitlines()
    assert all("web" not in unit for unit in json.loads(lines[0])["loss"])


def test_gradient_weightings_beside_images_without_labels(tmp_path: Path) -> None:
    """A step with only the unlabelled domain has no unit to weight, and is trained on."""
    domains = [*worlds("ants", "bees"), web(tmp_path)]
    foreign = Foreign(nn.Conv2d(3, 6, 3), lambda x: x.mean((2, 3)), pixels=Pixels((8, 8)))
    train(
        network(domains),
        domains,
        out=tmp_path / "run",
        device="cpu",
        teachers={"web": foreign},
        distill=Distill(features="cosine"),
        train=Train(weighting="db-mtl", sampling="temperature", **{**SHORT, "steps": 16}),
    )
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert any("web features" in line.get("distilled", {}) for line in found)


def test_without_a_teacher_it_is_refused_before_training(tmp_path: Path) -> None:
    domain = web(tmp_path, CLASSES)

    def refused(task: str, one: Domain = domain, frozen: bool = False, **more: Any) -> None:
        with raises(BadInput, f"web/{task}", "labels", "teachers.web"):
            settings = Train(**SHORT, frozen=frozen)
            train(network([one]), [one], out=tmp_path / "run", device="cpu", train=settings, **more)
        assert not (tmp_path / "run").exists()

    refused("classify")
    refused("classify", teachers={"web": a_teacher()}, distill=Distill(features="l2", logits=False))
    refused("embed", web(tmp_path / "b"))
    refused("classify", frozen=True)


def test_validation_images_with_labels_are_required_beside_it(tmp_path: Path) -> None:
    """A domain with labels and without validation images is refused as it is alone."""
    (ants,) = worlds("ants")
    domains = [ants, web(tmp_path, CLASSES)]
    model = network(domains)
    pixels = model.domains["ants"].pixels
    ants.expect((pixels.mean, pixels.std))  # as the training does, which reads the splits again
    val = ants.splits["val"]
    ants.splits["val"] = Split("val", val.rows[:0], ants.index, ants.decoded.frames, val.pixels)
    with raises(BadInput, "validation", "ants"):
        train(
            model,
            domains,
            out=tmp_path / "run",
            teachers={"web": a_teacher()},
            device="cpu",
            train=Train(**SHORT),
        )
