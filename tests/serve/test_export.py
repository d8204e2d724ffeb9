"""Export: outputs equal to PyTorch's, and the code in docs/onnx.md on unusual images."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Fit, Pixels
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Missing
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.serve.export import export
from onetrunk.settings import read_dataclass
from tests.helpers.errors import raises

PAGE = Path(__file__).parents[2] / "docs" / "onnx.md"
CLASSIFY = Task("classify", "classify", ("cat", "dog", "Übel"))
SEGMENT = Task("segment", "segment", ("sky", "sea"))
DEPTH = Task("depth", "depth")
NEAR = Task("near", "embed", ("u", "v"))


def make_model(domains: list[Domain], adapters: str = "none", arch: str = "resnet20") -> Universal:
    torch.manual_seed(0)
    model = Universal(Trunk(arch, adapters=adapters), domains)
    for name, parameter in model.named_parameters():
        if "slots" in name or "heads" in name:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.momentum = 0.5
    model.train()
    with torch.no_grad():
        for domain in domains:
            for _ in range(3):
                model(torch.randn(4, 3, *domain.pixels.size), domain=domain.name)
    return model.eval()


def run(path: Path, **feed: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path))
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


def check_close(got: np.ndarray, expected: torch.Tensor) -> None:
    assert got.shape == expected.shape
    assert np.abs(got - expected.numpy()).max() <= 1e-4 * expected.abs().max().item()


@pytest.mark.parametrize(
    ("arch", "adapters", "size"),
    [
        ("resnet20", "parallel", (24, 33)),
        ("timm/test_vit", "none", (160, 160)),
    ],
)
def test_one_domain_with_any_batch(
    tmp_path: Path, arch: str, adapters: str, size: tuple[int, int]
) -> None:
    domain = Domain("shop", None, [CLASSIFY, SEGMENT, DEPTH, NEAR], size=size)
    model = make_model([domain, Domain("b", None, [CLASSIFY], size=size)], adapters, arch)
    model.double().train()
    path = export(model, tmp_path / "shop.onnx", domain="shop")
    assert model.training  # the mode is kept
    assert next(model.parameters()).dtype == torch.float64
    model.float().eval()
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, *size)
        out = run(path, images=x.numpy())
        assert list(out) == ["shop/classify", "shop/segment", "shop/depth", "shop/near"]
        with torch.no_grad():
            for task, want in model(x, domain="shop").items():
                check_close(out[f"shop/{task}"], want)
    assert [file.name for file in tmp_path.iterdir()] == ["shop.onnx"]


def test_segnet(tmp_path: Path) -> None:
    """At a few pixels rounding decides which of two neighbours is the maximum."""
    model = make_model([Domain("shop", None, [SEGMENT, DEPTH], size=(24, 33))], arch="segnet")
    path = export(model, tmp_path / "shop.onnx", domain="shop")
    x = torch.randn(2, 3, 24, 33)
    out = run(path, images=x.numpy())
    with torch.no_grad():
        for task, want in model(x, domain="shop").items():
            off = np.abs(out[f"shop/{task}"] - want.numpy()) > 1e-4 * want.abs().max().item()
            assert off.mean() < 0.05


def test_metadata(tmp_path: Path) -> None:
    domain = Domain("shop", None, [CLASSIFY], size=(16, 20), fit="pad")
    path = export(make_model([domain]), tmp_path / "shop.onnx", domain="shop")
    meta = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    document = json.loads(meta["onetrunk"])
    assert document["format"] == 1
    assert document["domains"][0]["tasks"][0]["classes"] == ["cat", "dog", "Übel"]
    assert read_dataclass(Pixels, document["domains"][0]["pixels"]) == domain.pixels


@pytest.mark.slow
def test_all_domains_in_one_file(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    tasks = ([CLASSIFY], [CLASSIFY, SEGMENT], [CLASSIFY])
    domains = [Domain(name, None, t, size=16) for name, t in zip(names, tasks, strict=True)]
    model = make_model(domains, "parallel")
    path = export(model, tmp_path / "all.onnx")
    for order in (["c", "a", "b", "a", "c"], ["b"], ["a", "a"]):
        x = torch.randn(len(order), 3, 16, 16)
        index = np.array([names.index(name) for name in order])
        out = run(path, images=x.numpy(), domain=index)
        assert set(out) == {"a/classify", "b/classify", "b/segment", "c/classify"}
        with torch.no_grad():
            for i, name in enumerate(order):
                for task, want in model(x[i : i + 1], domain=name).items():
                    check_close(out[f"{name}/{task}"][i : i + 1], want)


def pictures(folder: Path) -> list[Path]:
    """Write rotated, grey, 16-bit, transparent, palette and 5:1 images."""
    chance = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        coarse = chance.integers(0, 256, (*shape[:2], *shape[2:]), np.uint8)
        return coarse.repeat(4, 0).repeat(4, 1)

    turned = Image.fromarray(noise(9, 14, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.png", exif=exif)
    Image.fromarray(noise(10, 8)).save(folder / "grey.png")
    Image.fromarray(noise(10, 11).astype(np.uint16) * 257 + 3).save(folder / "sixteen.png")
    Image.fromarray(noise(8, 8, 4)).save(folder / "clear.png")
    opaque = noise(6, 9, 4)
    opaque[..., 3] = 255
    Image.fromarray(opaque).save(folder / "opaque.png")
    Image.fromarray(noise(8, 12, 3)[:, 1:]).save(folder / "odd.png")
    palette = Image.fromarray(noise(8, 8, 3)).quantize(16)
    palette.save(folder / "palette.gif", transparency=3)
    Image.fromarray(noise(4, 20, 3)).save(folder / "strip.png")
    Image.fromarray(noise(6, 6) > 99).save(folder / "black-and-white.png")
    return sorted(folder.iterdir())


def code_of_page() -> str:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 1
    return str(blocks[0])


@pytest.mark.parametrize("fill", [77, None])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_the_page_prepares_images_as_training_does(
    tmp_path: Path, fit: Fit, fill: int | None
) -> None:
    files = pictures(tmp_path)
    lines = code_of_page().split("session =")[0]
    namespace: dict[str, Any] = {}
    exec(lines, namespace)
    prepare = namespace["prepare"]
    for size, margin in (((16, 16), 0), ((20, 33), 5), ((64, 48), 8), ((32, 32), 0)):
        settings = Pixels(size, fit, margin, fill, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
        for file in files:
            want = settings.prepare([file])[0].numpy()
            got = prepare(file, json.loads(json.dumps(settings.to_json())))
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-6, err_msg=file.name)


def test_the_page_gives_the_same_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    domain = Domain("shop", None, [CLASSIFY, SEGMENT], size=(24, 32), fit="crop")
    model = make_model([domain])
    export(model, tmp_path / "shop.onnx", domain="shop")
    (tmp_path / "pictures").mkdir()
    turned, clear = (
        file for file in pictures(tmp_path / "pictures") if file.stem in ("clear", "turned")
    )
    monkeypatch.chdir(tmp_path)
    code = code_of_page().replace('["one.jpg", "two.png"]', repr([str(turned), str(clear)]))
    assert set(re.findall(r"^(?:import|from) (.*?)(?: import.*)?$", code, re.M)) == {
        "json",
        "numpy as np, onnxruntime",
        "PIL",
    }
    namespace: dict[str, object] = {}
    exec(code, namespace)
    predictions = model.predict([turned, clear], domain="shop")
    outputs = namespace["outputs"]
    assert isinstance(outputs, dict)
    with torch.no_grad():
        x = domain.pixels.prepare([turned, clear])
        for task, want in model(x, domain="shop").items():
            check_close(outputs[f"shop/{task}"], want)
    printed = capsys.readouterr().out
    for prediction in predictions:
        assert prediction["classify"]["label"] in printed
    maps = outputs["shop/segment"].argmax(1)
    assert (
        maps == np.stack([prediction["segment"]["map"] for prediction in predictions])
    ).mean() > 0.999


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(
        [Domain("a", None, [CLASSIFY], size=16), Domain("b", None, [CLASSIFY], size=24)]
    )
    with raises(BadInput, "one size", got="a 16×16, b 24×24", try_="domain=NAME"):
        export(model, tmp_path / "all.onnx")
    with raises(BadInput, got="shop", available=["a", "b"]):
        export(model, tmp_path / "all.onnx", domain="shop")
    with raises(BadInput, ".onnx", got="a.txt", try_="a.onnx"):
        export(model, tmp_path / "a.txt", domain="a")
    with raises(BadInput, "folder", got=str(tmp_path / "nowhere")):
        export(model, tmp_path / "nowhere" / "all.onnx", domain="a")
    batch = Universal(Trunk("resnet20", norm="shared-batch"), [Domain("a", None, [CLASSIFY])])
    with raises(BadInput, got="norm = 'shared-batch'", try_="norm = 'domain'"):
        export(batch, tmp_path / "a.onnx", domain="a")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else find_spec(name)
    )
    with raises(Missing, "onnx", try_="pip install 'onetrunk[onnx]'"):
        export(model, tmp_path / "a.onnx", domain="a")
    assert not list(tmp_path.iterdir())
