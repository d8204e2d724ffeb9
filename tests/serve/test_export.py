"""Exported = PyTorch: one domain, all domains, and the page's reader on awkward images."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Missing
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.serve.export import export

PAGE = Path(__file__).parents[2] / "docs" / "onnx.md"
CLASSIFY = Task("classify", "classify", ("cat", "dog", "Übel"))
SEGMENT = Task("segment", "segment", ("sky", "sea"))
DEPTH = Task("depth", "depth")
NEAR = Task("near", "embed", ("u", "v"))


def made(domains: list[Domain], adapters: str = "none", arch: str = "resnet20") -> Universal:
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


def close(got: np.ndarray, want: torch.Tensor) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want.numpy()).max() <= 1e-4 * want.abs().max().item()


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
    model = made([domain, Domain("b", None, [CLASSIFY], size=size)], adapters, arch)
    model.double().train()
    path = export(model, tmp_path / "shop.onnx", domain="shop")
    assert model.training  # as it was
    assert next(model.parameters()).dtype == torch.float64
    model.float().eval()
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, *size)
        out = run(path, images=x.numpy())
        assert list(out) == ["shop/classify", "shop/segment", "shop/depth", "shop/near"]
        with torch.no_grad():
            for task, want in model(x, domain="shop").items():
                close(out[f"shop/{task}"], want)
    assert [file.name for file in tmp_path.iterdir()] == ["shop.onnx"]


def test_a_trunk_that_puts_maxima_back(tmp_path: Path) -> None:
    """Where two neighbours are equal but for rounding, either is the maximum: a few pixels."""
    model = made([Domain("shop", None, [SEGMENT, DEPTH], size=(24, 33))], arch="segnet")
    path = export(model, tmp_path / "shop.onnx", domain="shop")
    x = torch.randn(2, 3, 24, 33)
    out = run(path, images=x.numpy())
    with torch.no_grad():
        for task, want in model(x, domain="shop").items():
            off = np.abs(out[f"shop/{task}"] - want.numpy()) > 1e-4 * want.abs().max().item()
            assert off.mean() < 0.05


def test_the_file_says_labels_and_pixels(tmp_path: Path) -> None:
    domain = Domain("shop", None, [CLASSIFY], size=(16, 20), fit="pad")
    path = export(made([domain]), tmp_path / "shop.onnx", domain="shop")
    meta = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    said = json.loads(meta["onetrunk"])
    assert said["format"] == 1
    assert said["domains"][0]["tasks"][0]["classes"] == ["cat", "dog", "Übel"]
    assert Pixels.from_json(said["domains"][0]["pixels"]) == domain.pixels


def test_all_domains_in_one_file(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    tasks = ([CLASSIFY], [CLASSIFY, SEGMENT], [CLASSIFY])
    domains = [Domain(name, None, t, size=16) for name, t in zip(names, tasks, strict=True)]
    model = made(domains, "parallel")
    path = export(model, tmp_path / "all.onnx")
    for order in (["c", "a", "b", "a", "c"], ["b"], ["a", "a"]):
        x = torch.randn(len(order), 3, 16, 16)
        index = np.array([names.index(name) for name in order])
        out = run(path, images=x.numpy(), domain=index)
        assert set(out) == {"a/classify", "b/classify", "b/segment", "c/classify"}
        with torch.no_grad():
            for i, name in enumerate(order):
                for task, want in model(x[i : i + 1], domain=name).items():
                    close(out[f"{name}/{task}"][i : i + 1], want)


def pictures(folder: Path) -> list[Path]:
    """A turned photograph, a grey one, 16 bits, transparency, a palette with it, a 5:1 strip."""
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
    palette = Image.fromarray(noise(8, 8, 3)).quantize(16)
    palette.save(folder / "palette.gif", transparency=3)
    Image.fromarray(noise(4, 20, 3)).save(folder / "strip.png")
    Image.fromarray(noise(6, 6) > 99).save(folder / "black-and-white.png")
    return sorted(folder.iterdir())


def reader() -> str:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 1
    return str(blocks[0])


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_the_pages_reader_prepares_as_training_does(tmp_path: Path, fit: str) -> None:
    files = pictures(tmp_path)
    lines, namespace = reader().split("session =")[0], {}
    exec(lines, namespace)
    prepare = namespace["prepare"]
    for size, margin in (((16, 16), 0), ((20, 33), 5), ((64, 48), 8), ((32, 32), 0)):
        contract = Pixels(size, fit, margin, 77, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))  # type: ignore[arg-type]
        for file in files:
            want = contract.prepare([file])[0].numpy()
            got = prepare(file, json.loads(json.dumps(contract.to_json())))
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-6, err_msg=file.name)


def test_the_pages_reader_gives_the_same_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    domain = Domain("shop", None, [CLASSIFY, SEGMENT], size=(24, 32), fit="crop")
    model = made([domain])
    export(model, tmp_path / "shop.onnx", domain="shop")
    (tmp_path / "pictures").mkdir()
    turned, clear = (
        file for file in pictures(tmp_path / "pictures") if file.stem in ("clear", "turned")
    )
    monkeypatch.chdir(tmp_path)
    code = reader().replace('["one.jpg", "two.png"]', repr([str(turned), str(clear)]))
    assert set(re.findall(r"^(?:import|from) (.*?)(?: import.*)?$", code, re.M)) == {
        "json",
        "numpy as np, onnxruntime",
        "PIL",
    }
    namespace: dict[str, object] = {}
    exec(code, namespace)
    wanted = model.predict([turned, clear], domain="shop")
    outputs = namespace["outputs"]
    assert isinstance(outputs, dict)
    with torch.no_grad():
        x = domain.pixels.prepare([turned, clear])
        for task, want in model(x, domain="shop").items():
            close(outputs[f"shop/{task}"], want)
    said = capsys.readouterr().out
    for prediction in wanted:
        assert prediction["classify"]["label"] in said
    maps = outputs["shop/segment"].argmax(1)
    assert (
        maps == np.stack([prediction["segment"]["map"] for prediction in wanted])
    ).mean() > 0.999


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made([Domain("a", None, [CLASSIFY], size=16), Domain("b", None, [CLASSIFY], size=24)])
    with pytest.raises(BadInput, match=r"one size; got: 'a 16×16, b 24×24'.*domain=NAME"):
        export(model, tmp_path / "all.onnx")
    with pytest.raises(BadInput, match=r"unknown domain.*'shop'.*available: a, b"):
        export(model, tmp_path / "all.onnx", domain="shop")
    with pytest.raises(BadInput, match="no such folder"):
        export(model, tmp_path / "nowhere" / "all.onnx", domain="a")
    batch = Universal(Trunk("resnet20", norm="shared-batch"), [Domain("a", None, [CLASSIFY])])
    with pytest.raises(BadInput, match="shared-batch"):
        export(batch, tmp_path / "a.onnx", domain="a")
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else there(name)
    )
    with pytest.raises(Missing, match=r"pip install 'onetrunk\[onnx\]'"):
        export(model, tmp_path / "a.onnx", domain="a")
    assert not list(tmp_path.iterdir())
