"""The smallest model of each timm module has the same outputs with and without banks."""

from __future__ import annotations

from typing import Any, cast

import pytest
import timm
import torch

from onetrunk.errors import BadInput
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.testing.models import difference, make_domain, make_images
from tests.helpers.errors import raises

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LARGEST = 40_000_000  # parameters
TRIED = 5  # models of a module that are compared; lists go roughly from small to large
HUGE = ("large", "huge", "giant", "xlarge", "gigantic", "so400m", "_7b", "_1b")

# Modules that cannot have banks.
REFUSED = ("nfnet",)


def _smallest(module: str) -> tuple[int, str]:
    """Return the model with the fewest parameters, counted on the meta device."""
    sizes = []
    for name in timm.list_models(module=module):
        if any(word in name for word in HUGE):
            continue
        try:
            with torch.device("meta"):
                net = timm.create_model(name, num_classes=0)
        except Exception:  # some compute with their weights while they are built
            net = timm.create_model(name, num_classes=0)
        sizes.append((sum(p.numel() for p in net.parameters()), name))
        if len(sizes) == TRIED:
            break
    return min(sizes, default=(LARGEST + 1, ""))


@pytest.mark.parametrize("module", timm.list_modules())
def test_every_module_of_timm(module: str) -> None:
    count, name = _smallest(module)
    if count > LARGEST:
        pytest.skip(f"no member under {LARGEST:,} parameters")
    torch.manual_seed(0)
    if module in REFUSED:
        with raises(BadInput, name, got="domain", try_="shared"):
            Trunk(f"timm/{name}")
        return
    trunk = Trunk(f"timm/{name}")
    settings = cast(dict[str, Any], trunk.net.pretrained_cfg)
    _, height, width = settings.get("input_size", (3, 224, 224))
    size = (height, width)
    model = Universal(trunk, [make_domain("a", size), make_domain("b", size)]).eval()
    x = make_images(2, size)
    with torch.no_grad():
        plain = model.for_domain("a", fold=False)
        assert torch.equal(plain(x)["classify"], model(x, "a")["classify"])
        for parameter in model.parameters_of("b").values():
            parameter.mul_(1.05)
        if not trunk.independent("a", size):
            assert name == "csatv2", f"{name} mixes the images of a batch"
            return
        mixed = model(x, ["b", "a"])
        alone = model(x[:1], "b")["classify"][0]
        assert difference(mixed[0]["classify"], alone) < 1e-3
