"""Predictions from files, pictures and arrays, prepared by the domain's pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Raw
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.predict import Prediction
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from tests.helpers.errors import raises


@pytest.fixture(scope="module")
def model() -> Universal:
    torch.manual_seed(0)
    every = [
        Task("what", "classify", ("x", "y")),
        Task("tags", "multilabel", ("p", "q")),
        Task("count", "regress", outputs=2),
        Task("like", "embed", ("x",)),
        Task("parts", "segment", ("p", "q")),
        Task("far", "depth"),
        Task("up", "normals"),
    ]
    return Universal(
        Trunk("resnet20"),
        [
            Domain("all", None, every, size=32),
            Domain("shop", None, [Task("what", "classify", ("u", "v", "w"))], size=(24, 40)),
        ],
    )


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def predict_one(model: Universal, image: NDArray[np.uint8], domain: str) -> Prediction:
    prediction = model.predict(image, domain)
    assert isinstance(prediction, dict)
    return prediction


def test_one_image(model: Universal, picture: NDArray[np.uint8]) -> None:
    model.train()
    prediction = predict_one(model, picture, "shop")
    assert model.training  # the mode is restored
    what = prediction["what"]
    assert what["label"] in ("u", "v", "w")
    assert what["score"] == max(what["scores"].values())
    assert abs(sum(what["scores"].values()) - 1) < 1e-5
    model.eval()
    pixels = model.domains["shop"].pixels.prepare([picture])
    with torch.no_grad():
        expected = model(pixels, "shop")["what"][0].softmax(0)
    assert what["scores"] == pytest.approx(dict(zip("uvw", expected.tolist(), strict=True)))


def test_every_form_gives_the_same(
    model: Universal, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    forms: list[Raw] = [picture, Image.fromarray(picture), path, str(path), path.read_bytes()]
    predictions = model.predict(forms, "shop")
    assert len(predictions) == len(forms)
    for prediction in predictions:
        assert prediction["what"]["scores"] == pytest.approx(predictions[0]["what"]["scores"])
    of_folder = model.predict(tmp_path, "shop")
    assert isinstance(of_folder, list)
    assert of_folder[0]["what"]["label"] == predictions[0]["what"]["label"]
    assert len(model.predict(np.stack([picture, picture]), "shop")) == 2


def test_mixed_domains_and_sizes(model: Universal, picture: NDArray[np.uint8]) -> None:
    names = ["shop", "all", "shop", "all", "all"]
    predictions = model.predict([picture] * 5, names)
    for name, prediction in zip(names, predictions, strict=True):
        alone = predict_one(model, picture, name)["what"]["scores"]
        assert prediction["what"]["scores"] == pytest.approx(alone, abs=1e-5)


def test_every_kind(model: Universal, picture: NDArray[np.uint8]) -> None:
    prediction = predict_one(model, picture, "all")
    assert set(prediction["tags"]) == {"labels", "scores"}
    assert len(prediction["count"]["values"]) == 2
    assert np.linalg.norm(prediction["like"]["vector"]) == pytest.approx(1, abs=1e-5)
    assert prediction["parts"]["map"].shape == (32, 32)
    assert prediction["parts"]["map"].dtype == np.uint8
    assert prediction["parts"]["classes"] == ("p", "q")
    assert prediction["far"]["map"].shape == (32, 32)
    assert prediction["up"]["map"].shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("images", "domain", "facts", "fields"),
    [
        ("not-there.png", "shop", ["not-there.png", "no such file"], {}),
        (b"junk", "shop", ["image 0"], {}),
        (3, "shop", [], {"got": "int"}),
        ([], "shop", [], {"got": "none"}),
        (np.zeros((4, 4, 7), np.uint8), "shop", ["image 0"], {}),
        (np.zeros((4, 4), np.uint8), "shap", [], {"got": "shap", "available": ["shop"]}),
        ([np.zeros((4, 4), np.uint8)], ["shop", "all"], [], {"got": "2 for 1 images"}),
    ],
)
def test_bad_input(
    model: Universal, images: Any, domain: str | list[str], facts: list[str], fields: dict[str, Any]
) -> None:
    with raises(BadInput, *facts, **fields):
        model.predict(images, domain)


def test_an_empty_folder(model: Universal, tmp_path: Path) -> None:
    with raises(BadInput, "folder", got=str(tmp_path)):
        model.predict(tmp_path, "shop")


def test_shared_batch_needs_several_images(picture: NDArray[np.uint8]) -> None:
    task = [Task("what", "classify", ("u", "v"))]
    model = Universal(Trunk("resnet20", norm="shared-batch"), [Domain("a", None, task, size=32)])
    with raises(BadInput, "8 images", got="7 of a"):
        model.predict([picture] * 7, "a")
    assert len(model.predict([picture] * 8, "a")) == 8
