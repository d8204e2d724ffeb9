"""Merged specialists: their weighted sum, and its scale, which is chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import evaluate
from onetrunk.nn import networks as nets
from onetrunk.nn.model_files import save_models
from onetrunk.nn.saving import load, save
from onetrunk.nn.universal import Universal
from onetrunk.runs.merging import Specialists, choose_scale, common_start, merge
from onetrunk.train.recalibrate import recalibrate
from tests.helpers.errors import raises
from tests.helpers.worlds import network, same, weights, worlds

RECIPE = """
name = "alone"
init = "{init}"
[trunk]
arch = "resnet20"
sharing = "none"
pretrained = {pretrained}
[[domains]]
name = "ants"
source = "pocket:optdigits"
"""


def run(folder: Path, models: Mapping[str, Universal], init: str = "", weights: str = "") -> Path:
    """Write the folder of a finished run of specialists."""
    folder.mkdir()
    pretrained = f'"{weights}"' if weights else "false"
    (folder / "recipe.toml").write_text(RECIPE.format(init=init, pretrained=pretrained))
    save_models(models, folder)
    return folder


def perturbed(model: Universal, seed: int) -> Universal:
    """Add noise to every tensor, as training would change them."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=chance))
    return model.eval()


def specialists(
    domains: Sequence[Domain], same_start: bool = False, **trunk: Any
) -> dict[str, Any]:
    return {
        d.name: perturbed(
            network([d], 0 if same_start else 7 + i, sharing="none", **trunk), 100 + i
        )
        for i, d in enumerate(domains)
    }


def slots_and_heads(model: Universal, name: str) -> dict[str, torch.Tensor]:
    """Return a domain's own tensors without the trunk, which a specialist also owns."""
    return {key: t for key, t in model.own(name).items() if not key.startswith("trunk/")}


def predictions(model: Universal, domain: Domain) -> torch.Tensor:
    images, _ = domain.test.batch(torch.arange(4).numpy())
    with torch.no_grad():
        found: torch.Tensor = model.eval()(images, domain.name)["classify"]
    return found


@pytest.mark.parametrize(
    "trunk", [{}, {"norm": "domain-stats"}, {"norm": "shared"}, {"adapters": "series"}], ids=str
)
def test_specialists_from_scratch_are_averaged(trunk: dict[str, Any], tmp_path: Path) -> None:
    domains = worlds("ants", "bees", "cats")
    models = specialists(domains, **trunk)
    model = merge(run(tmp_path / "r", models))
    assert list(model.domains) == ["ants", "bees", "cats"]
    assert (model.trunk.sharing, model.training) == ("deep", False)
    every = [m.trunk.shared() for m in models.values()]
    for key, tensor in model.trunk.shared().items():
        if tensor.is_floating_point():
            expected = (every[0][key] + every[1][key] + every[2][key]) / 3
            torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-6)
    for name, one in models.items():
        assert same(slots_and_heads(model, name), slots_and_heads(one, name))
        assert model.domains[name] == one.domains[name]


def test_a_single_specialist_is_unchanged(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    models = specialists(domains)
    model = merge(run(tmp_path / "r", models), ["bees"])
    assert list(model.domains) == ["bees"]
    assert predictions(model, domains[1]).equal(predictions(models["bees"], domains[1]))


def test_task_arithmetic_by_hand(tmp_path: Path) -> None:
    """Specialists that continue from one trunk are merged as θ0 + λ·Σ(θ_d − θ0)."""
    domains = worlds("ants", "bees")
    origin = perturbed(network(domains, 3), 50)
    save(origin, tmp_path / "deep")
    models = specialists(domains, same_start=True)
    folder = run(tmp_path / "r", models, init="../deep")
    start, (a, b) = origin.trunk.shared(), [m.trunk.shared() for m in models.values()]
    for scale in (0.0, 0.3, 1.0):
        model = merge(folder, scale=scale)
        for key, tensor in model.trunk.shared().items():
            if tensor.is_floating_point():
                expected = start[key] + scale * ((a[key] - start[key]) + (b[key] - start[key]))
                torch.testing.assert_close(tensor, expected, atol=1e-5, rtol=1e-5)
        for name, one in models.items():
            assert same(slots_and_heads(model, name), slots_and_heads(one, name))
    half, mean = (merge(folder, scale=s).trunk.shared() for s in (0.5, None))
    assert all(torch.allclose(half[key], mean[key], atol=1e-6) for key in mean)


def test_pretrained_weights_are_a_common_start(tmp_path: Path) -> None:
    state = nets.build("resnet20").state_dict()
    save_file(state, tmp_path / "w.safetensors")
    models = specialists(worlds("ants", "bees"))
    folder = run(tmp_path / "r", models, weights="../w.safetensors")
    start = common_start(folder)
    assert start is not None
    assert all(start[key].equal(tensor) for key, tensor in state.items())
    found = merge(folder, scale=0.0).trunk.shared()
    assert all(found[key].equal(state[key]) for key in found)


def test_specialists_that_cannot_be_merged(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    folder = run(tmp_path / "r", specialists(domains))
    assert common_start(folder) is None
    with raises(BadInput, got="scale = 0.3", try_="no scale"):
        merge(folder, scale=0.3)
    with raises(BadInput, got="cats", available=["ants", "bees"]):
        merge(folder, ["ants", "cats"])
    with raises(BadInput, got="ants, ants"):
        merge(folder, ["ants", "ants"])
    save(network(domains), tmp_path / "deep")
    with raises(BadInput, tmp_path / "deep", got="sharing = 'deep'", try_="sharing = 'none'"):
        merge(tmp_path / "deep")
    other = {**specialists(domains[:1]), **specialists(domains[1:], norm="shared")}
    with raises(BadInput, "bees", try_="ants"):
        merge(run(tmp_path / "two", other))
    chained = run(
        tmp_path / "on", specialists(domains), init="../r"
    )  # each continues from another network
    assert common_start(chained) is None
    linked = run(tmp_path / "nan", specialists(domains), init="../deep")
    with raises(BadInput, "finite", "nan"):
        merge(linked, scale=float("nan"))


def test_a_merged_model_is_saved_and_loaded(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    model = merge(run(tmp_path / "r", specialists(domains)))
    save(model, tmp_path / "merged")
    for domain in domains:
        assert predictions(load(tmp_path / "merged"), domain).equal(predictions(model, domain))


def test_the_scale_is_chosen_on_validation(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    save(perturbed(network(domains, 3), 50), tmp_path / "deep")
    folder = run(tmp_path / "r", specialists(domains, same_start=True), init="../deep")
    scales = (0.0, 0.3, 1.0)
    for recalibrated in (False, True):
        found = choose_scale(folder, domains, scales, recalibrated=recalibrated)
        for scale in scales:
            model = merge(folder, scale=scale)
            if recalibrated:
                recalibrate(model, domains)
            errors = [evaluate(model, [d], "val", progress=False).value(d.name) for d in domains]
            assert found.val[scale] == pytest.approx(sum(errors) / 2)
            if scale == found.scale:
                assert same(weights(model), weights(found.model))
        assert found.scale == min(scales, key=lambda scale: found.val[scale])


def test_without_a_common_start_there_is_no_scale_to_choose(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    folder = run(tmp_path / "r", specialists(domains))
    found = choose_scale(folder, domains)
    assert (found.scale, list(found.val)) == (None, [0.5])
    assert same(weights(found.model), weights(Specialists(folder).merge()))
