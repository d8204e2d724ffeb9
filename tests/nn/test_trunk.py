"""Trunks: stages, weights from files, what is shared."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from onetrunk.errors import BadInput, Failed
from onetrunk.nn import foreign
from onetrunk.nn import networks as nets
from onetrunk.nn.bank import StageBank
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.testing.models import make_domain, make_images, make_model
from tests.helpers.errors import raises

STAGES = {
    "resnet20": ("stem", "1", "2", "3"),
    "segnet": ("stem", "down2", "down3", "down4", "down5", "up5", "up4", "up3", "up2", "up1"),
    "timm/resnet18": ("stem", "layer1", "layer2", "layer3", "layer4"),
    "timm/test_convnext": ("stem", "stages.0", "stages.1", "stages.2", "stages.3"),
    "timm/test_efficientnet": ("stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3"),
}


@pytest.mark.parametrize("arch", STAGES)
def test_stages_have_names(arch: str) -> None:
    assert Trunk(arch).stages[: len(STAGES[arch])] == STAGES[arch]


@pytest.mark.parametrize(("given", "name"), [(1, "layer1"), ("layer1", "layer1"), (0, "stem")])
def test_own_stages_by_name_or_number(given: int | str, name: str) -> None:
    trunk = Trunk("timm/resnet18", sharing="partial", own_stages=[given])
    assert trunk.own_stages == (name,)
    owned = [path for path, bank in trunk.banks().items() if isinstance(bank, StageBank)]
    assert owned == {"layer1": ["layer1"], "stem": ["conv1", "bn1"]}[name]
    model = Universal(trunk, [make_domain("a"), make_domain("b")])
    assert any(key.startswith(f"slots/{owned[0]}/") for key in model.parameters_of("b"))


def test_weights_that_cannot_be_fetched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        logging.getLogger("huggingface_hub.utils").warning("Retrying in 8s")
        if pretrained:
            raise OSError("no network\nmore of it")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(foreign, "check_download", lambda _: None)
    source = "https://huggingface.co/timm/resnet18.a1_in1k"
    with raises(Failed, "timm/resnet18", source, got="no network", try_="trunk.pretrained"):
        Trunk("timm/resnet18", pretrained=True)
    assert "Retrying" not in capsys.readouterr().err
    Trunk("timm/test_resnet")


def test_a_stage_that_no_domain_can_own() -> None:
    with raises(BadInput, "timm/test_vit", "stem", available=["blocks.0"]):
        Trunk("timm/test_vit", sharing="partial", own_stages=["stem"])


@pytest.mark.parametrize(
    ("keys", "facts", "fields"),
    [
        ({"sharing": "deap"}, ["sharing"], {"got": "deap", "available": ["deep"]}),
        ({"own_stages": [1]}, ["own_stages", "partial", "deep", "[1]"], {}),
        ({"sharing": "partial"}, ["own_stages", "partial", "[]"], {}),
        ({"sharing": "partial", "own_stages": ["layer9"]}, ["own_stages"], {"got": "layer9"}),
        ({"sharing": "partial", "own_stages": [17]}, ["own_stages"], {"got": "17"}),
        ({"pretrained": True}, ["resnet20"], {"got": "pretrained = true"}),
        ({"pretrained": "not/there.safetensors"}, ["pretrained"], {"got": "there.safetensors"}),
    ],
)
def test_bad_arguments(keys: dict[str, Any], facts: list[str], fields: dict[str, Any]) -> None:
    with raises(BadInput, *facts, **fields):
        Trunk("resnet20", **keys)


def test_unknown_archs() -> None:
    near = "timm/resnet18"  # as a user types it
    with raises(BadInput, got="timm/resnet1888", available=[near], try_=near, place="arch") as info:
        Trunk("timm/resnet1888")
    assert len(info.value.available or ()) <= 5
    with raises(BadInput, got="timm/zzz", try_="timm.list_models()") as info:
        Trunk("timm/zzz")
    assert info.value.available is None
    with raises(BadInput, got="resnet21", available=nets.NAMES, try_="resnet20", place="arch"):
        Trunk("resnet21")


@pytest.mark.parametrize("form", ["safetensors", "pth", "nested"])
def test_weights_from_a_file(tmp_path: Path, form: str) -> None:
    net = timm.create_model("test_resnet", num_classes=7)
    state = net.state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if form == "nested" else state, path)
    trunk = Trunk("timm/test_resnet", pretrained=path)
    shared = trunk.shared()
    assert all(torch.equal(v, state[k]) for k, v in shared.items())
    assert set(state) - set(shared) == {"fc.weight", "fc.bias"}


def test_tensors_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = nets.build("resnet20").state_dict()
    state["stage1.unit1.conv1.weight"] = torch.zeros(1)
    state["extra"] = torch.zeros(1)
    del state["stem.conv.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with raises(
        BadInput, "resnet20", "stem.conv.weight", "extra", "stage1.unit1.conv1.weight (1,)"
    ):
        Trunk("resnet20", pretrained=tmp_path / "w.safetensors")


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"stem.conv.weight": Evil()}, tmp_path / "w.pth")
    with raises(BadInput, "w.pth"):
        Trunk("resnet20", pretrained=tmp_path / "w.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("keys", [{}, {"norm": "domain-stats"}, {"norm": "instance-domain"}])
def test_names_of_shared_tensors(keys: dict[str, Any]) -> None:
    model = make_model(lambda: Trunk("resnet20", adapters="parallel", **keys), 32)
    plain = set(nets.build("resnet20").state_dict())
    assert set(model.trunk.shared()) <= plain
    assert {k for k in plain if "conv" in k} <= set(model.trunk.shared())


def test_the_fingerprint_depends_on_shared_tensors_alone() -> None:
    model = make_model(lambda: Trunk("resnet20"), 32)
    before = model.trunk.fingerprint()
    for parameter in model.parameters_of("ants").values():
        parameter.data += 1
    model.remove("bees")
    assert model.trunk.fingerprint() == before
    assert model.double().float().trunk.fingerprint() == before
    next(iter(model.shared_parameters().values())).data += 1
    assert model.trunk.fingerprint() != before


def test_two_sizes_of_one_transformer() -> None:
    model = Universal(
        Trunk("timm/test_vit"), [make_domain("a", 64), make_domain("b", (48, 80))]
    ).eval()
    assert model(make_images(1, (48, 80)), "b")["classify"].shape == (1, 3)
