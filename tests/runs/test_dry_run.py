"""A dry run estimates time, memory and disk space of a training and writes no file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from onetrunk.data import cache_room, sample
from onetrunk.data.cache import purge
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.runs.dry_run import dry_run, peak_memory
from onetrunk.runs.train import train_recipe
from tests.helpers.errors import raises
from tests.helpers.worlds import noise, recipe


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


def files(root: Path) -> list[tuple[str, int]]:
    """Return every file and folder below a folder, with its time."""
    return [(str(path), path.stat().st_mtime_ns) for path in sorted(root.rglob("*"))]


def test_a_dry_run_writes_nothing_at_all(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    found = dry_run(recipe(tmp_path), "cpu")
    assert files(tmp_path) == before
    assert not cache_home.exists()
    data = found["data"]["digits"]
    assert (data["images"], data["sampled"], data["cached"]) == (1796, 48, False)

    train_recipe(recipe(tmp_path), device="cpu")
    folder = next(path for path in cache_home.iterdir() if path.is_dir())
    size = sum(path.stat().st_size for path in folder.glob("*.bin"))
    assert data["cache_bytes"] == found["cache_bytes"] == size
    before = files(tmp_path)
    again = dry_run(recipe(tmp_path), "cpu")
    assert files(tmp_path) == before
    assert again["data"]["digits"]["cached"]
    assert again["cache_bytes"] == again["decode_seconds"] == 0


def test_only_a_sample_is_decoded_and_stands_for_all() -> None:
    source = noise(200)
    full = Domain("d", noise(200), size=8)
    domain = Domain("d", source, size=8).sampled(seed=3)
    assert len(source.reads) == 1 + 3 * 16  # the first of them untimed
    for split in ("train", "val", "test"):
        assert len(domain.splits[split]) == len(full.splits[split])
        np.testing.assert_array_equal(
            domain.splits[split].label("classify"), full.splits[split].label("classify")
        )
    np.testing.assert_allclose(domain.pixels.mean, full.pixels.mean, atol=0.05)
    images, _ = domain.train.batch(np.arange(len(domain.train)))
    assert images.shape == (len(full.train), 3, 8, 8)
    assert len(source.reads) == 1 + 3 * 16
    assert domain.sample is not None and domain.sample.seconds > 0


def test_unreadable_images_of_the_sample_are_a_warning() -> None:
    source = noise(40)
    bad = [str(i) for i in range(40) if i % 4 == 0]
    source.images = {**source.images, **dict.fromkeys(bad, b"a text")}
    notes = Domain("d", source, size=8).sampled().notes()
    assert any("sampled train images cannot be read" in note for note in notes)
    source.images = {str(i): b"a text" for i in range(40)}
    with raises(BadInput, "d: ", "not an image", try_="onetrunk data"):
        Domain("d", source, size=8).sampled()


def test_the_sample_of_large_images_is_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "MOST_BYTES", 3 * 5 * 3 * 8 * 8)
    domain = Domain("d", noise(200), size=8).sampled()
    assert domain.sample is not None
    assert domain.sample.images == 3 * 5


def test_a_distillation_is_estimated_without_writing(tmp_path: Path, cache_home: Path) -> None:
    one = recipe(tmp_path)
    train_recipe(one.with_sets(["trunk.sharing=none", "out=teachers"]), device="cpu")
    purge()
    before = files(tmp_path)
    found = dry_run(one.with_sets(["distill.teachers=teachers"]), "cpu")
    assert files(tmp_path) == before
    assert list(cache_home.iterdir()) == []
    assert found["parts"][""]["seconds"] > 0


def test_a_large_cache_is_a_warning(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_room, "LARGE", 1000)
    found = dry_run(recipe(tmp_path), "cpu")
    assert any("--yes" in warning for warning in found["warnings"])
    assert not cache_home.exists()


def test_the_optimizer_is_shown_with_the_values_in_force(tmp_path: Path) -> None:
    sets = ["train.optimizer=sgd", "train.lr=0.2"]
    assert dry_run(recipe(tmp_path).with_sets(sets), "cpu")["optimizer"] == {
        "name": "sgd",
        "lr": 0.2,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "head_lr_factor": 1.0,
        "ema": 0.0,
        "label_smoothing": 0.0,
        "start": "scratch",
        "defaults": ["weight_decay", "momentum", "head_lr_factor", "ema", "label_smoothing"],
    }


def test_errors_are_raised_before_any_training(tmp_path: Path) -> None:
    with raises(BadInput, "domains.digits", "nothing"):
        dry_run(recipe(tmp_path).with_sets(["domains.digits.source=pocket:nothing"]), "cpu")
    with raises(BadInput, got="abacus"):
        dry_run(recipe(tmp_path), "abacus")
