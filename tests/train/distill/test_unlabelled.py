"""Images without labels: what teachers alone teach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
from onetrunk.testing import scatter
from onetrunk.train.distill.foreign import Foreign
from tests.helpers.fakes import encoded, picture
from tests.helpers.worlds import network, same, weights, worlds

CLASSES = {"classify": {"kind": "classify", "classes": ["a", "b"]}}
SHORT: dict[str, Any] = {"steps": 4, "batch": 8, "eval_every": 2, "optimizer": "sgd", "lr": 0.05}


def heap(folder: Path, count: int = 40) -> Path:
    """Images in two folders that mean nothing."""
    for i in range(count):
        path = folder / ("one" if i % 2 else "two") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(i, 8, 8)))
    return folder


def web(folder: Path, tasks: Any = None, count: int = 40) -> Domain:
    return Domain("web", f"unlabelled:{heap(folder / 'web', count)}", tasks, size=8)


def test_it_has_images_and_no_labels(tmp_path: Path) -> None:
    domain = web(tmp_path, {**CLASSES, "maps": {"kind": "segment", "classes": ["x", "y"]}})
    assert sum(len(split) for split in domain.splits.values()) == 40
    assert (domain.train.label("classify") == -1).all()
    _, targets = domain.train.batch([0, 1])
    assert (targets["maps"] == 255).all()
    assert [task.name for task in web(tmp_path / "b").tasks] == ["embed"]
    assert domain.index.warnings == []


def test_splits_that_folders_name_are_kept(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("valid", 2), ("test", 3)):
        heap(tmp_path / split, count)
    domain = Domain("web", f"unlabelled:{tmp_path}", CLASSES, size=8)
    assert [len(s) for s in domain.splits.values()] == [5, 2, 3]


def test_what_it_cannot_be_is_said(tmp_path: Path) -> None:
    heap(tmp_path / "web")
    (tmp_path / "nothing").mkdir()
    for source, tasks, match in (
        ("web", ["classify"], "task classify has no labels to take its classes from"),
        ("nothing", None, "unlabelled:nothing: no images"),
        ("web/one/1.png", None, "expected a folder, and this is a file"),
    ):
        with pytest.raises(BadInput, match=match):
            _ = Domain("web", f"unlabelled:{source}", tasks, size=8, base=tmp_path).index


def a_teacher() -> Any:
    """A network that knows the classes, from elsewhere."""
    model = network([Domain("shop", None, CLASSES, size=8)], seed=9)
    scatter(model, 8, 9)
    return model.eval()


def test_predictions_alone_teach_it(tmp_path: Path) -> None:
    """The student comes nearer to what its teacher says; nobody needed a label."""
    domain = web(tmp_path, CLASSES)
    teacher, student = a_teacher(), network([domain])
    images, _ = domain.train.batch(range(len(domain.train)))

    def apart(model: Any) -> float:
        with torch.no_grad():
            t = teacher(images, "shop")["classify"].softmax(1)
            return float((model(images, "web")["classify"].softmax(1) - t).abs().mean())

    before = apart(student.eval())
    run = train(
        student,
        [domain],
        out=tmp_path / "run",
        device="cpu",
        teachers={"web": teacher},
        distill=Distill(features="l2", temperature=1.0),
        train=Train(**{**SHORT, "steps": 30, "eval_every": 10, "lr": 0.1}),
    )
    assert apart(run.model.eval()) < 0.5 * before
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert scores["best"] == {"": {"step": 30, "score": None}}  # the newest
    assert scores["test"]["rows"] == []
    assert evaluate(run.model, [domain]).rows == ()
    assert same(weights(load(tmp_path / "run")), weights(run.model.eval()))


def test_features_alone_teach_it_beside_a_domain_with_labels(tmp_path: Path) -> None:
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
    assert scores["taught"]["web"] == [
        {
            "teacher": "Conv2d",
            "predictions": [],
            "features": [["pooled", "pooled"]],
            "loss": "cosine",
        }
    ]
    assert scores["taught"]["ants"] == []
    assert scores["best"][""]["score"] is not None  # chosen on the ants
    assert {row.domain for row in run.table.rows} == {"ants"}


@pytest.mark.parametrize("weighting", ["uncertainty", "stch", "famo"])
def test_what_has_no_label_is_not_weightingd(tmp_path: Path, weighting: str) -> None:
    """One unit has labels, so every weighting is the plain loss; a loss of nothing weighs nothing."""
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


def test_gradients_are_weightingd_beside_images_without_labels(tmp_path: Path) -> None:
    """A step of the unlabelled domain alone has nothing to weighting, and is learned from."""
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
    assert any("web features" in line.get("taught", {}) for line in found)


def test_without_a_teacher_it_is_refused_before_anything(tmp_path: Path) -> None:
    domain = web(tmp_path, CLASSES)

    def refused(match: str, one: Domain = domain, frozen: bool = False, **more: Any) -> None:
        with pytest.raises(BadInput, match=match) as caught:
            train(
                network([one]),
                [one],
                out=tmp_path / "run",
                device="cpu",
                train=Train(**SHORT, frozen=frozen),
                **more,
            )
        assert "web/" in str(caught.value)
        assert not (tmp_path / "run").exists()

    nobody = "web/classify: its images have no labels, and no teacher answers it"
    refused(nobody)
    refused(nobody, teachers={"web": a_teacher()}, distill=Distill(features="l2", logits=False))
    refused("web/embed: .* no teacher answers it", web(tmp_path / "b"))
    refused(nobody, frozen=True)


def test_images_without_labels_choose_no_weights_for_others(tmp_path: Path) -> None:
    """A domain with labels and without validation images is refused beside them, too."""
    (ants,) = worlds("ants")
    val = ants.splits["val"]
    ants.splits["val"] = Split("val", val.rows[:0], ants.index, ants.decoded.frames, val.pixels)
    domains = [ants, web(tmp_path, CLASSES)]
    with pytest.raises(BadInput, match="no validation image to choose weights by: ants"):
        train(
            network(domains),
            domains,
            out=tmp_path / "run",
            teachers={"web": a_teacher()},
            device="cpu",
            train=Train(**SHORT),
        )
