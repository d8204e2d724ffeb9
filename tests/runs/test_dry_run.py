"""A dry run estimates time, memory and disk space of a training and writes no file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onetrunk.errors import BadInput
from onetrunk.runs.dry_run import dry_run, peak_memory
from onetrunk.runs.train import train_recipe
from tests.helpers.errors import raises
from tests.helpers.worlds import recipe


def test_estimates_are_close_to_the_measured_values(tmp_path: Path) -> None:
    one = recipe(tmp_path)
    chance = torch.get_rng_state()
    found = dry_run(one, "cpu")
    assert not (tmp_path / "runs").exists()
    assert list(tmp_path.rglob("*.toml")) == []
    assert torch.get_rng_state().equal(chance)
    assert not torch.are_deterministic_algorithms_enabled()
    (part,) = found["parts"].values()
    assert (found["name"], found["device"], part["domains"]) == ("tiny", "cpu", ["digits"])
    assert part["steps"] == 3
    assert part["seconds"] == pytest.approx(3 * part["seconds_per_step"])
    assert part["images_per_s"] == pytest.approx(4 / part["seconds_per_step"])
    assert found["seconds"] == part["seconds"]

    run = train_recipe(one, device="cpu")
    parameters = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    assert part["parameters"] == pytest.approx(parameters, rel=0.02)
    saved = max(p.stat().st_size for p in (tmp_path / "runs").rglob("tensors.safetensors"))
    assert part["checkpoint_bytes"] == pytest.approx(saved, rel=0.02)
    assert found["disk_bytes"] == 3 * part["checkpoint_bytes"] + part["model_bytes"]
    assert found["memory_bytes"] == pytest.approx(peak_memory(torch.device("cpu")), rel=0.5)


def test_each_specialist_is_estimated(tmp_path: Path) -> None:
    one = recipe(tmp_path).with_sets(["trunk.sharing=none", "train.epochs=2"])
    found = dry_run(one, "cpu")
    assert list(found["parts"]) == ["digits"]
    assert found["parts"]["digits"]["steps"] == 2 * 1076 // 4


def test_hours_are_estimated_in_steps(tmp_path: Path) -> None:
    (part,) = dry_run(recipe(tmp_path).with_sets(["train.hours=2"]), "cpu")["parts"].values()
    assert part["seconds"] == 7200
    assert part["steps"] == round(7200 / part["seconds_per_step"])


def test_the_optimizer_is_shown_with_the_values_in_force(tmp_path: Path) -> None:
    sets = ["train.optimizer=sgd", "train.lr=0.2"]
    assert dry_run(recipe(tmp_path).with_sets(sets), "cpu")["optimizer"] == {
        "name": "sgd",
        "lr": 0.2,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "defaults": ["weight_decay", "momentum"],
    }


def test_errors_are_raised_before_any_training(tmp_path: Path) -> None:
    with raises(BadInput, "domains.digits", "nothing"):
        dry_run(recipe(tmp_path).with_sets(["domains.digits.source=pocket:nothing"]), "cpu")
    with raises(BadInput, got="abacus"):
        dry_run(recipe(tmp_path), "abacus")
