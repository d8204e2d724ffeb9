"""timm checkpoints as they are: labels by name, images by their own contract."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed
from onetrunk.eval.timm_checkpoint import build, chosen, evaluate_checkpoint, match, pixels_of
from tests.helpers.fakes import dense_source, small

ARCH = "timm/test_resnet"
CLASSES = ("Great_White-Shark", "tench", "n01443537", "crane", "unicorn")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


def zoo(count: int = 80) -> Domain:
    return Domain("zoo", small(count, CLASSES, splits=("train", "val", "test", "test")), size=12)


def test_names_of_imagenet_and_what_is_none() -> None:
    _, names = build(ARCH, False, None)
    assert len(names) == 1000
    found = match(Task("t", "classify", CLASSES), names)
    assert found == {
        "Great_White-Shark": (2,),
        "tench": (0,),
        "n01443537": (1,),
        "crane": (134, 517),  # the bird and the machine
        "unicorn": (),
    }


def test_logits_of_classes_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, -5.0, 9.0]])
    places = torch.tensor([[2, 3], [0, 1], [3, 3]])  # 3: no label
    found = chosen(logits, places)
    expected = torch.stack([logits[:, 2], logits[:, :2].logsumexp(1), torch.full((2,), -1e4)], 1)
    assert torch.allclose(found, expected)
    assert chosen(logits * torch.nan, places).isnan().any()


def test_evaluated_as_one_image_after_another(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domain = zoo()
    found = evaluate_checkpoint(ARCH, [domain], weights=weights)
    net = timm.create_model("test_resnet")
    net.load_state_dict(load_file(weights))
    net.eval()
    pixels = Pixels((160, 160), "crop", 8, 0, (0.5,) * 3, (0.5,) * 3)
    right = []
    source: Any = domain.opened
    for i in range(len(domain.test)):
        picture = source.image(str(int(domain.test.key(i)[:4])))
        with torch.no_grad():
            out = net(pixels.prepare([picture]))[0]
        scores = [float(out[2]), float(out[0]), float(out[1])]
        scores.append(float(out[[134, 517]].logsumexp(0)))
        name = CLASSES[int(np.argmax(scores))]
        label = domain.tasks[0].classes[domain.test.label("classify")[i]]
        right.append(name == label)
    row = found.table().row("zoo")
    assert row.value == pytest.approx(100 * (1 - np.mean(right)))
    assert row.count == len(right) and row.low is not None
    assert found.table().value("zoo", metric="ece") >= 0
    assert len(found.outcomes().parts["zoo", "classify"]) == len(right)
    shown = found.names["zoo", "classify"]
    assert shown["tench"] == ("tench, Tinca tinca",) and shown["unicorn"] == ()
    said = capsys.readouterr().err
    assert "zoo/classify: 1 of 5 classes are no label, so never predicted: unicorn" in said
    assert "crane = crane + crane" in said and len(found.notes) == 2


def test_a_file_with_labels_of_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=3)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pth")
    (tmp_path / "labels.txt").write_text("B\n\nother\na\n")
    domain = Domain("two", small(40), size=12)
    found = evaluate_checkpoint(
        "test_resnet", [domain], weights=tmp_path / "net.pth", labels=tmp_path / "labels.txt"
    )
    assert found.names["two", "classify"] == {"a": ("a",), "b": ("B",)}
    again = evaluate_checkpoint(
        "test_resnet", [domain], weights=tmp_path / "net.pth", labels=["b", "x", "a"], batch=3
    )
    assert again.table() == found.table()


def test_other_kinds_and_unknown_classes_are_left_out(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rooms = Domain("rooms", dense_source(12), size=(10, 14))
    letters = Domain("letters", small(40), size=12)
    found = evaluate_checkpoint(ARCH, [rooms, letters, zoo()], weights=weights)
    assert found.table().domains == ("zoo",)
    said = capsys.readouterr().err
    assert "rooms/depth: to depth is not what it learned: left out" in said
    assert "letters/classify: none of its classes is a label: left out" in said
    with pytest.raises(BadInput, match=r"no label has the name of a class.*got: 'a, b'.*try: lab"):
        evaluate_checkpoint(ARCH, [letters], weights=weights)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Pixels((160, 160), "crop", 8, 0, (0.5,) * 3, (0.5,) * 3)),
        ({"crop_pct": 1.0}, Pixels((160, 160), "crop", 0, 0, (0.5,) * 3, (0.5,) * 3)),
        (
            {"input_size": (3, 224, 224), "crop_pct": 0.875, "crop_mode": "squash"},
            Pixels((224, 224), "squash", 32, 0, (0.5,) * 3, (0.5,) * 3),
        ),
        (
            {"input_size": (3, 224, 224), "crop_pct": None, "mean": (0, 0, 0), "std": (1, 1, 1)},
            Pixels((224, 224), "crop", 32, 0, (0.0,) * 3, (1.0,) * 3),
        ),
    ],
)
def test_its_own_contract(config: dict[str, Any], expected: Pixels) -> None:
    net = timm.create_model("test_resnet")
    net.pretrained_cfg = {**net.pretrained_cfg, **config}
    assert pixels_of(net) == expected
    net.pretrained_cfg["input_size"] = (1, 28, 28)
    with pytest.raises(BadInput, match="colour images; got: '1 channels'"):
        pixels_of(net)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"arch": "timm/resnet1"}, "unknown timm model; got: 'resnet1'; available: resnet"),
    "no file": ({"weights": "gone.safetensors"}, "no such file; got: 'gone.safetensors'"),
    "no labels file": ({"labels": "gone.txt"}, "labels: cannot read the file"),
    "other labels": ({"labels": ["a", "b"]}, "does not fit"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, weights: Path) -> None:
    keys, says = REFUSED[case]
    arch = keys.get("arch", ARCH)
    rest = {"weights": weights} | {k: v for k, v in keys.items() if k != "arch"}
    with pytest.raises(BadInput, match=says):
        evaluate_checkpoint(arch, [zoo(16)], **rest)


def test_labels_that_nobody_names(monkeypatch: pytest.MonkeyPatch) -> None:
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **_: make(name, num_classes=7))
    with pytest.raises(BadInput, match="its 7 labels have no names here; try: labels=FILE"):
        build(ARCH, False, None)
    with pytest.raises(BadInput, match="has 7 labels; got: '2 names'"):
        build(ARCH, True, ["a", "b"])


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> Any:
        raise OSError("We couldn't connect to the hub\nand a page of advice")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        Failed, match=r"cannot be fetched \(We couldn't connect to the hub\); next:"
    ):
        evaluate_checkpoint(ARCH, [zoo(16)])


def test_outputs_that_are_no_numbers(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    state["fc.bias"][0] = torch.nan
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(Failed, match="zoo/classify: the model's outputs are not finite for 6 of 6"):
        evaluate_checkpoint(ARCH, [zoo(16)], weights=tmp_path / "net.safetensors")


def test_images_come_straight_from_their_files(weights: Path, cache_home: Path) -> None:
    """At 168×168 the cache of a large source would be larger than anything that is trained on."""
    domain = zoo(16)
    evaluate_checkpoint(ARCH, [domain], weights=weights)
    assert [f.name.split("-")[1] for f in cache_home.iterdir() if f.is_dir()] == ["12x12"]
