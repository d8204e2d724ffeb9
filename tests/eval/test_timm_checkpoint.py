"""timm checkpoints: classes by name, and images prepared by the settings of the checkpoint."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
from onetrunk.errors import BadInput, Failed
from onetrunk.eval.timm_checkpoint import build, evaluate_checkpoint
from onetrunk.nn import foreign
from onetrunk.nn.foreign import class_logits, match_classes, places_table, timm_pixels
from tests.helpers.errors import raises
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


def test_names_of_imagenet() -> None:
    _, names = build(ARCH, False, None)
    assert len(names) == 1000
    columns = match_classes(CLASSES, names)
    assert places_table(columns, 1000).tolist()[3:] == [[134, 517], [1000, 1000]]
    assert columns == {
        "Great_White-Shark": (2,),
        "tench": (0,),
        "n01443537": (1,),
        "crane": (134, 517),  # the bird and the machine
        "unicorn": (),
    }


def test_logits_of_classes_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, -5.0, 9.0]])
    columns = torch.tensor([[2, 3], [0, 1], [3, 3]])  # 3: no output
    found = class_logits(logits, columns)
    expected = torch.stack([logits[:, 2], logits[:, :2].logsumexp(1), torch.full((2,), -1e4)], 1)
    assert torch.allclose(found, expected)
    assert class_logits(logits * torch.nan, columns).isnan().any()


def test_evaluation_by_hand(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert len(found.outcomes().tasks["zoo", "classify"]) == len(right)
    shown = found.labels["zoo", "classify"]
    assert shown["tench"] == ("tench, Tinca tinca",) and shown["unicorn"] == ()
    printed = capsys.readouterr().err
    assert "zoo/classify: 1 of 5 classes" in printed and "unicorn" in printed
    assert "crane = crane + crane" in printed and len(found.notes) == 2


def test_a_file_with_its_own_labels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=3)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pth")
    (tmp_path / "labels.txt").write_text("B\n\nother\na\n")
    domain = Domain("two", small(40), size=12)
    found = evaluate_checkpoint(
        "test_resnet", [domain], weights=tmp_path / "net.pth", labels=tmp_path / "labels.txt"
    )
    assert found.labels["two", "classify"] == {"a": ("a",), "b": ("B",)}
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
    printed = capsys.readouterr().err
    assert "rooms/depth: left out" in printed
    assert "letters/classify: left out" in printed
    with raises(BadInput, ARCH, got="a, b", available=["tench, Tinca tinca"], try_="labels=FILE"):
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
def test_pixels(config: dict[str, Any], expected: Pixels) -> None:
    net = timm.create_model("test_resnet")
    settings = {**cast(dict[str, Any], net.pretrained_cfg), **config}
    net.__dict__["pretrained_cfg"] = settings
    assert timm_pixels(net) == expected
    settings["input_size"] = (1, 28, 28)
    with raises(BadInput, got="1 channels"):
        timm_pixels(net)


REFUSED: dict[str, tuple[dict[str, Any], list[str], dict[str, Any]]] = {
    "no model": ({"arch": "timm/resnet1"}, [], {"available": ["timm/resnet18"]}),
    "no file": ({"weights": "gone.safetensors"}, [], {"got": "gone.safetensors"}),
    "no labels file": ({"labels": "gone.txt"}, ["labels"], {}),
    "other labels": ({"labels": ["a", "b"]}, [ARCH, "fc.weight (1000"], {}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, weights: Path) -> None:
    keys, facts, fields = REFUSED[case]
    arch = keys.get("arch", ARCH)
    rest = {"weights": weights} | {k: v for k, v in keys.items() if k != "arch"}
    with raises(BadInput, *facts, **fields):
        evaluate_checkpoint(arch, [zoo(16)], **rest)


def test_unknown_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **_: make(name, num_classes=7))
    with raises(BadInput, "7 outputs", try_="labels=FILE"):
        build(ARCH, False, None)
    with raises(BadInput, "7 outputs", got="2 names"):
        build(ARCH, False, ["a", "b"])


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> Any:
        raise OSError("We couldn't connect to the hub\nand a page of advice")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(foreign, "check_download", lambda _: None)
    with raises(Failed, "test_resnet", got="We couldn't connect to the hub", try_="pypi:"):
        evaluate_checkpoint(ARCH, [zoo(16)])


def test_outputs_that_are_not_finite(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    state["fc.bias"][0] = torch.nan
    save_file(state, tmp_path / "net.safetensors")
    with raises(Failed, "zoo/classify", "6 of 6"):
        evaluate_checkpoint(ARCH, [zoo(16)], weights=tmp_path / "net.safetensors")


def test_images_are_read_from_their_files(weights: Path, cache_home: Path) -> None:
    """The cache of a large source at 168×168 would be larger than any that is used in training."""
    domain = zoo(16)
    evaluate_checkpoint(ARCH, [domain], weights=weights)
    assert [f.name.split("-")[1] for f in cache_home.iterdir() if f.is_dir()] == ["12x12"]
