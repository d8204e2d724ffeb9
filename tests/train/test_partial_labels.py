"""Datasets that label only some of the tasks of an image: from the source to the gradient."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Loader
from onetrunk.data.task import KINDS, Kind, Task
from onetrunk.nn.universal import Universal
from onetrunk.train.losses import Losses
from tests.helpers.fakes import Fake, dense_targets, labelled, picture
from tests.helpers.worlds import network

COUNT, SIDE = 24, 12
NAMED = ("classify", "multilabel", "embed", "segment")


def half(kind: Kind, also: Kind) -> Domain:
    """Images all labelled for one task, every second one for the other; some pixels never."""
    mine = Task("mine", kind, ("wall", "floor", "item") if kind in NAMED else ())
    other = Task("other", also, ("x", "y") if also in NAMED else ())
    listed, targets = [], {}
    for i, item in enumerate(labelled(COUNT, "ab", ("train", "train", "train", "val", "test"))):
        label: Any = {
            "classify": mine.classes and mine.classes[i // 2 % 3],
            "embed": mine.classes and mine.classes[i // 2 % 3],
            "multilabel": mine.classes[: i // 2 % 4],
            "regress": float(i),
        }.get(kind)
        labels = {} if mine.dense else {"mine": label if i % 2 == 0 else None}
        labels |= {} if other.dense else {"other": "xy"[i % 2] if other.classes else float(i % 5)}
        listed.append(replace(item, labels=labels))
        for task in (mine, other):
            if task.dense and (task is other or i % 2 == 0):
                made = dense_targets(i, SIDE, SIDE)[task.kind]
                if task.kind == "segment" and task is other:
                    made = np.minimum(made, 1)
                made[:3] = 255 if task.kind == "segment" else 0
                targets[str(i), task.name] = made
    images = {str(i): picture(i, SIDE, SIDE) for i in range(COUNT)}
    return Domain("half", Fake((mine, other), listed, images, targets), size=SIDE)


def gradients(model: Universal, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.autograd.backward(loss)
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("also", ["classify", "depth"])
@pytest.mark.parametrize("kind", KINDS)
def test_images_without_a_label_do_not_change_the_gradient(kind: Kind, also: Kind) -> None:
    domain = half(kind, also)
    model = network([domain]).double().eval()  # in training an image's statistics are its batch's
    losses = Losses([domain])
    places = np.arange(len(domain.train))
    known = np.array([int(domain.train.key(i)[:4]) % 2 == 0 for i in range(len(places))])
    assert 0 < known.sum() < len(known)

    def loss(chosen: Any, task: str) -> Tensor:
        images, targets = domain.train.batch(chosen)
        found = losses("half", model(images.double(), "half"), [(1.0, targets)])
        return found[task]

    mine = gradients(model, loss(places, "mine"))
    alone = gradients(model, loss(places[known], "mine"))
    assert mine.keys() == alone.keys()
    for name, grad in alone.items():
        torch.testing.assert_close(mine[name], grad, rtol=1e-9, atol=1e-12, msg=name)
    assert any(grad.abs().max() > 1e-6 for grad in mine.values())
    nothing = gradients(model, loss(places[~known], "mine"))
    assert all((grad == 0).all() for grad in nothing.values())
    both = gradients(model, (loss(places, "mine") + loss(places, "other")) / 2)
    other = gradients(model, loss(places, "other"))
    for name, grad in both.items():
        parts = [g[name] for g in (mine, other) if name in g]
        torch.testing.assert_close(grad, torch.stack(parts).sum(0) / 2, rtol=1e-8, atol=1e-12)


def scenes(root: Path) -> None:
    """Write folders of images that each have some of the targets."""
    for i in range(24):
        name = f"{'day' if i % 2 else 'night'}/{i:02}"
        for part in ("images", "segment", "depth", "normals"):
            (root / part / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(i, 10, 14)).save(root / f"images/{name}.png")
        maps = dense_targets(i, 10, 14)
        if i % 3 == 0:
            Image.fromarray(maps["segment"]).save(root / f"segment/{name}.png")
        if i % 3 == 1:
            np.save(root / f"depth/{name}.npy", maps["depth"])
        if i % 3 != 0:
            np.save(root / f"normals/{name}.npy", maps["normals"])
    (root / "segment/classes.txt").write_text("wall\nfloor\nitem\n")


def test_a_folder_with_partial_targets(tmp_path: Path) -> None:
    scenes(tmp_path / "scenes")
    kinds = ["classify", "segment", "depth", "normals"]
    domain = Domain("scenes", "folder:scenes", kinds, size=(10, 14), base=tmp_path)
    learns(domain, kinds)
    keys = [domain.train.key(i) for i in range(len(domain.train))]
    _, targets = domain.train.batch(np.arange(len(keys)))
    for i, key in enumerate(keys):
        number = int(Path(key).stem)
        assert bool((targets["segment"][i] != 255).any()) == (number % 3 == 0)
        assert bool((targets["depth"][i] > 0).any()) == (number % 3 == 1)
        assert bool((targets["normals"][i] != 0).any()) == (number % 3 != 0)
        named = domain.tasks[0].classes[int(targets["classify"][i])]
        assert named == ("day" if number % 2 else "night")


def test_a_coco_split_without_annotations(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    root = tmp_path / "coco"
    for split, count in (("train2017", 24), ("val2017", 4)):
        names = [f"{i:04}.png" for i in range(count)]
        for i, name in enumerate(names):
            (root / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(i, 10, 14)).save(root / split / name)
        document: dict[str, Any] = {
            "images": [
                {"id": i, "file_name": n, "height": 10, "width": 14} for i, n in enumerate(names)
            ],
            "categories": [{"id": 3, "name": "car"}, {"id": 18, "name": "dog"}],
        }
        if split == "train2017":
            square = [1, 1, 8, 1, 8, 8, 1, 8]
            document["annotations"] = [
                {"image_id": i, "category_id": (3, 18)[i // 2 % 2], "segmentation": [square]}
                for i in range(0, count, 2)
            ]
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(document))
    kinds = ["segment", "multilabel"]
    domain = Domain("coco", "coco:coco", kinds, size=(10, 14), base=tmp_path)
    learns(domain, kinds)
    _, targets = domain.val.batch(np.arange(len(domain.val)))
    assert (targets["segment"] == 255).all()
    assert (targets["multilabel"] == 255).all()


def learns(domain: Domain, kinds: list[str]) -> None:
    """Check that every task has a finite loss and that every head gets a gradient."""
    model = network([domain])
    losses = Losses([domain])
    loader = iter(Loader([domain], batch=6, seed=0))
    total = torch.zeros(())
    for _ in range(3):
        (batch,) = next(loader)
        found = losses(domain.name, model(batch.images, domain.name), [(1.0, batch.targets)])
        assert list(found) == kinds
        total = total + torch.stack(list(found.values())).mean()
    grads = gradients(model, total)
    assert torch.isfinite(total)
    for kind in kinds:
        own = [g for name, g in grads.items() if f".task_{kind}." in name]
        assert own
        assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in own), kind
