"""A new built-in method is one new file: each kind is found by its name and passes its checks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import onetrunk as ot
from onetrunk.nn.adapters import ADAPTERS
from onetrunk.nn.norms import NORMS
from onetrunk.registry import Registry
from onetrunk.testing import check_adapter, check_norm
from tests.helpers.errors import raises

NORM = '''
    """`one-scale`: each domain owns one number by which every norm's output is multiplied."""

    import copy

    import torch
    from torch import nn

    from onetrunk.nn.bank import Bank
    from onetrunk.nn.norms import Norm


    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))


    class Scaled(nn.Module):
        def __init__(self, layer, scale):
            super().__init__()
            self.layer, self.scale = layer, scale

        def forward(self, x):
            return self.layer(x) * self.scale.scale


    class ScaleBank(Bank):
        def __init__(self, layer, path, switch):
            super().__init__(path, switch)
            self.origin = layer

        def make_slot(self):
            return Scale()

        def run(self, x, slot):
            return self.origin(x) * slot.scale

        def resolve(self, name):
            return Scaled(copy.deepcopy(self.origin), copy.deepcopy(self.slots[name]))


    class OneScale(Norm):
        needs_running_statistics = True
        min_images = 2

        def replace(self, layer, path, switch):
            return ScaleBank(layer, path, switch)


    NORM = OneScale
'''

ADAPTER = '''
    """`bias-shift`: y = f(x) + b, merged into the bias of the layer when the network is folded."""

    import torch
    from torch import nn

    from onetrunk.nn.adapters import Adapter, AdapterMethod


    class Shift(Adapter):
        def __init__(self, channels):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(channels))

        def forward(self, x, y):
            return y + self.shift.view(-1, 1, 1)

        def merged(self, layer, sizes):
            bias = self.shift.double()
            return layer.weight, bias if layer.bias is None else layer.bias + bias


    class BiasShift(AdapterMethod):
        layer_types = (nn.Conv2d,)
        takes_rank = False

        def make(self, layer, rank):
            return Shift(layer.out_channels)


    ADAPTER = BiasShift
'''


@contextmanager
def added(registry: Registry[Any], name: str, source: str, folder: Path) -> Iterator[None]:
    """Add one file to the package of a registry while the block runs."""
    package: Any = importlib.import_module(registry.package)
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(dedent(source).lstrip(), "utf-8")
    package.__path__.append(str(folder))
    registry.__dict__.pop("names", None)
    try:
        yield
    finally:
        package.__path__.remove(str(folder))
        registry.__dict__.pop("names", None)
        sys.modules.pop(f"{registry.package}.{module}", None)
        vars(package).pop(module, None)


def domain(name: str = "signs") -> ot.Domain:
    return ot.Domain(name, None, [ot.Task("classify", "classify", ("stop", "go"))], size=32)


def test_a_norm(tmp_path: Path) -> None:
    with added(NORMS, "one-scale", NORM, tmp_path):
        assert "one-scale" in list(NORMS)
        with raises(ot.BadInput, available=["one-scale"]):
            ot.Trunk("resnet20", norm="one-scales")
        with raises(ot.BadInput, got="one-scale"):  # what it needs is asked of it
            ot.Trunk("timm/test_vit", norm="one-scale")
        model = ot.Universal(ot.Trunk("resnet20", norm="one-scale"), [domain()])
        assert "slots/stem.norm/scale" in model.own("signs")
        with raises(ot.BadInput, "2 images", got="1 of signs"):
            model.predict(b"", "signs")
        check_norm("one-scale")
    with pytest.raises(ot.BadInput):
        ot.Trunk("resnet20", norm="one-scale")


def test_an_adapter(tmp_path: Path) -> None:
    with added(ADAPTERS, "bias-shift", ADAPTER, tmp_path):
        assert "bias-shift" in list(ADAPTERS)
        with raises(ot.BadInput, available=["bias-shift"]):
            ot.Trunk("resnet20", adapters="bias-shifts")
        model = ot.Universal(ot.Trunk("resnet20", adapters="bias-shift"), [domain()])
        assert "slots/stem.conv/shift" in model.own("signs")
        with raises(ot.BadInput, "bias-shift", got=4):
            model.add_domain(domain("maps"), adapters="bias-shift", rank=4)
        report = model.for_domain("signs").report
        assert report is not None and report.adapters == 19
        check_adapter("bias-shift")
    with pytest.raises(ot.BadInput):
        ot.Trunk("resnet20", adapters="bias-shift")
