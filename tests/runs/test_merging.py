"""Merged specialists: the sum as the formula says, the scale by validation alone."""

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
    """A folder as a finished run of specialists leaves it."""
    folder.mkdir()
    pretrained = f'"{weights}"' if weights else "false"
    (folder / "recipe.toml").write_text(RECIPE.format(init=init, pretrained=pretrained))
    save_models(models, folder)
    return folder


def shaken(model: Universal, seed: int) -> Universal:
    """Other numbers everywhere, as training would leave them."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=chance))
    return model.eval()


def alone(domains: Sequence[Domain], same_start: bool = False, **trunk: Any) -> dict[str, Any]:
    return {
        d.name: shaken(network([d], 0 if same_start else 7 + i, sharing="none", **trunk), 100 + i)
        for i, d in enumerate(domains)
    }


def slots_and_heads(model: Universal, name: str) -> dict[str, torch.Tensor]:
    """What a domain owns in any network; a specialist owns its trunk, too."""
    return {key: t for key, t in model.own(name).items() if not key.startswith("trunk/")}


def predictions(model: Universal, domain: Domain) -> torch.Tensor:
    images, _ = domain.test.batch(torch.arange(4).numpy())
    with torch.no_grad():
        found: torch.Tensor = model.eval()(images, domain.name)["classify"]
    return found


@pytest.mark.parametrize(
    "trunk", [{}, {"norm": "domain-stats"}, {"norm": "shared"}, {"adapters": "series"}], ids=str
)
def test_from_scratch_it_is_the_mean(trunk: dict[str, Any], tmp_path: Path) -> None:
    domains = worlds("ants", "bees", "cats")
    models = alone(domains, **trunk)
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


def test_one_alone_is_itself(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    models = alone(domains)
    model = merge(run(tmp_path / "r", models), ["bees"])
    assert list(model.domains) == ["bees"]
    assert predictions(model, domains[1]).equal(predictions(models["bees"], domains[1]))


def test_task_arithmetic_as_its_formula_says(tmp_path: Path) -> None:
    """Specialists that go on from one trunk: θ0 + λ·Σ(θ_d − θ0), by hand."""
    domains = worlds("ants", "bees")
    origin = shaken(network(domains, 3), 50)
    save(origin, tmp_path / "deep")
    models = alone(domains, same_start=True)
    place = run(tmp_path / "r", models, init="../deep")
    zero, (a, b) = origin.trunk.shared(), [m.trunk.shared() for m in models.values()]
    for scale in (0.0, 0.3, 1.0):
        model = merge(place, scale=scale)
        for key, tensor in model.trunk.shared().items():
            if tensor.is_floating_point():
                expected = zero[key] + scale * ((a[key] - zero[key]) + (b[key] - zero[key]))
                torch.testing.assert_close(tensor, expected, atol=1e-5, rtol=1e-5)
        for name, one in models.items():
            assert same(slots_and_heads(model, name), slots_and_heads(one, name))
    half, mean = (merge(place, scale=s).trunk.shared() for s in (0.5, None))
    assert all(torch.allclose(half[key], mean[key], atol=1e-6) for key in mean)


def test_pretrained_weights_are_a_common_start(tmp_path: Path) -> None:
    state = nets.build("resnet20").state_dict()
    save_file(state, tmp_path / "w.safetensors")
    models = alone(worlds("ants", "bees"))
    place = run(tmp_path / "r", models, weights="../w.safetensors")
    start = common_start(place)
    assert start is not None
    assert all(start[key].equal(tensor) for key, tensor in state.items())
    found = merge(place, scale=0.0).trunk.shared()
    assert all(found[key].equal(state[key]) for key in found)


def test_what_has_no_sum(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    place = run(tmp_path / "r", alone(domains))
    assert common_start(place) is None
    with raises(BadInput, got="scale = 0.3", try_="no scale"):
        merge(place, scale=0.3)
    with raises(BadInput, got="cats", available=["ants", "bees"]):
        merge(place, ["ants", "cats"])
    with raises(BadInput, got="ants, ants"):
        merge(place, ["ants", "ants"])
    save(network(domains), tmp_path / "deep")
    with raises(BadInput, tmp_path / "deep", got="sharing = 'deep'", try_="sharing = 'none'"):
        merge(tmp_path / "deep")
    other = {**alone(domains[:1]), **alone(domains[1:], norm="shared")}
    with raises(BadInput, "bees", try_="ants"):
        merge(run(tmp_path / "two", other))
    chained = run(tmp_path / "on", alone(domains), init="../r")  # each continued from its own
    assert common_start(chained) is None
    linked = run(tmp_path / "nan", alone(domains), init="../deep")
    with raises(BadInput, "finite", "nan"):
        merge(linked, scale=float("nan"))


def test_saved_and_loaded_it_predicts_the_same(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    model = merge(run(tmp_path / "r", alone(domains)))
    save(model, tmp_path / "merged")
    for domain in domains:
        assert predictions(load(tmp_path / "merged"), domain).equal(predictions(model, domain))


def test_the_scale_is_chosen_on_validation(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    save(shaken(network(domains, 3), 50), tmp_path / "deep")
    place = run(tmp_path / "r", alone(domains, same_start=True), init="../deep")
    scales = (0.0, 0.3, 1.0)
    for recalibrated in (False, True):
        found = choose_scale(place, domains, scales, recalibrated=recalibrated)
        for scale in scales:
            model = merge(place, scale=scale)
            if recalibrated:
                recalibrate(model, domains)
            errors = [evaluate(model, [d], "val", progress=False).value(d.name) for d in domains]
            assert found.val[scale] == pytest.approx(sum(errors) / 2)
            if scale == found.scale:
                assert same(weights(model), weights(found.model))
        assert found.scale == min(scales, key=lambda scale: found.val[scale])


def test_without_a_start_there_is_nothing_to_choose(tmp_path: Path) -> None:
    domains = worlds("ants", "bees")
    place = run(tmp_path / "r", alone(domains))
    found = choose_scale(place, domains)
    assert (found.scale, list(found.val)) == (None, [0.5])
    assert same(weights(found.model), weights(Specialists(place).merge()))
