"""Every family of trunks, every norm and every adapter passes the conformance suite."""

from typing import Any

import pytest

from onetrunk.nn.adapters import ADAPTERS
from onetrunk.nn.norms import NORMS
from onetrunk.nn.trunk import Trunk
from onetrunk.testing import check_trunk
from onetrunk.testing.models import Size

# The smallest of each kind of network; sizes that each can take.
FAMILIES = [
    ("resnet20", 32),
    ("segnet", 32),
    ("timm/test_resnet", 64),
    ("timm/test_efficientnet", 64),
    ("timm/test_efficientnet_evos", 64),
    ("timm/test_byobnet", 64),
    ("timm/test_convnext", 64),
    ("timm/test_mambaout", 64),
    ("timm/test_vit", 64),
    ("timm/test_vit4", 64),
    ("timm/mobilenetv3_small_050", 64),
    ("timm/tf_efficientnet_lite0", 32),
]
THREE = [("resnet20", 32), ("timm/test_efficientnet", 48), ("timm/test_vit", 48)]


@pytest.mark.parametrize(("arch", "size"), FAMILIES)
def test_families(arch: str, size: Size) -> None:
    check_trunk(lambda: Trunk(arch, norm="domain", adapters="parallel"), size)


@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize(("arch", "size"), THREE)
def test_norms(arch: str, size: Size, norm: str) -> None:
    if arch == "timm/test_vit" and NORMS.load(norm).needs_running_statistics:
        pytest.skip(
            "this trunk keeps no running statistics; the refusal is tested in test_norms.py"
        )
    check_trunk(lambda: Trunk(arch, norm=norm), size)


@pytest.mark.parametrize("adapters", list(ADAPTERS))
@pytest.mark.parametrize(("arch", "size"), THREE)
def test_adapters(arch: str, size: Size, adapters: str) -> None:
    check_trunk(lambda: Trunk(arch, norm="shared", adapters=adapters), size)


def test_owned_stages() -> None:
    check_trunk(lambda: Trunk("resnet20", sharing="partial", own_stages=["3"]), 32)


def test_full_sharing() -> None:
    check_trunk(lambda: Trunk("resnet20", sharing="full"), 32)


def test_standardized_weights() -> None:
    check_trunk(lambda: Trunk("timm/test_nfnet", norm="shared", adapters="parallel"), 64)


@pytest.mark.parametrize(
    "keys",
    [
        {"norm": "tests.helpers.outside:norm"},
        {"norm": "domain", "adapters": "tests.helpers.outside:adapter"},
    ],
    ids=["norm", "adapter"],
)
def test_user_methods(keys: dict[str, Any]) -> None:
    check_trunk(lambda: Trunk("resnet20", **keys), 32, fold=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("timm/resnet18", 64),
        ("timm/regnety_002", 64),
        ("timm/convnext_atto", 64),
        ("timm/vit_tiny_patch16_224", 64),
        ("timm/swin_tiny_patch4_window7_224", 64),
        ("timm/levit_128s", 224),
        ("timm/efficientvit_b0", 64),
        ("timm/mobilevit_xxs", 64),
        ("timm/test_efficientnet_gn", 64),
        ("timm/test_efficientnet_ln", 64),
        ("timm/resnet18", (48, 80)),
        ("timm/convnext_atto", (64, 96)),
        ("timm/vit_tiny_patch16_224", (64, 96)),
    ],
)
def test_more_families(arch: str, size: Size) -> None:
    check_trunk(lambda: Trunk(arch, norm="domain", adapters="parallel"), size)
