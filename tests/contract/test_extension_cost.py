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
import torch

import onetrunk as ot
from onetrunk.config.check import check
from onetrunk.data.sampling import SAMPLERS
from onetrunk.data.sources import SOURCES, SourceOptions, open_source
from onetrunk.nn.adapters import ADAPTERS
from onetrunk.nn.norms import NORMS
from onetrunk.registry import Registry
from onetrunk.testing import (
    check_adapter,
    check_feature_loss,
    check_norm,
    check_sampler,
    check_source,
    check_weighting,
)
from onetrunk.train.distill.aligners import ALIGNERS, make_aligner
from onetrunk.train.distill.feature_losses import FEATURE_LOSSES, load_feature_loss
from onetrunk.train.weighting import WEIGHTINGS
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

FEATURE_LOSS = '''
    """`smooth-l1`: the smooth L1 distance of features."""

    import torch.nn.functional as F

    from onetrunk.train.distill.feature_losses import FeatureLoss

    FEATURE_LOSS = FeatureLoss(F.smooth_l1_loss, min_images=2, fallback="cosine")
'''

WEIGHTING = '''
    """`inverse`: each unit is weighted by the inverse of its loss."""

    from onetrunk.train.weighting import Weighting


    class Inverse(Weighting):
        needs_losses = True

        def weights(self, losses, present):
            return len(present) * (1 / losses) / (1 / losses).sum()


    WEIGHTING = Inverse
'''

SOURCE = '''
    """`squares:NUMBER`: red and green squares."""

    from PIL import Image

    from onetrunk.data.sources import Item
    from onetrunk.data.task import Task


    class Squares:
        def __init__(self, rest, options):
            self.count = int(rest)
            self.tasks = (Task("classify", "classify", ("green", "red")),)

        def items(self):
            for number in range(self.count):
                color = ("green", "red")[number % 2]
                key = f"{color}/{number}"
                yield Item(key, key, "1", labels={"classify": color})

        def image(self, where):
            return Image.new("RGB", (12, 12), where.split("/")[0])

        def target(self, where, task):
            return None


    SOURCE = Squares
'''

ALIGNER = '''
    """`scaled`: features of the same width, multiplied by a number."""

    import torch
    from torch import nn


    class Scaled(nn.Module):
        def __init__(self, student, teacher):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, features):
            return self.scale * features


    ALIGNER = Scaled
'''

SAMPLER = '''
    """`alternate`: one domain per step, in turn."""


    class Alternate:
        joined = False

        def domains(self, sizes, step, seed, temperature):
            return [list(sizes)[step % len(sizes)]]

        def steps_per_epoch(self, rounds):
            return sum(rounds)


    SAMPLER = Alternate
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


def test_a_feature_loss(tmp_path: Path) -> None:
    with added(FEATURE_LOSSES, "smooth-l1", FEATURE_LOSS, tmp_path):
        assert "smooth-l1" in list(FEATURE_LOSSES)
        loss = load_feature_loss("smooth-l1")
        assert loss is not None and loss.min_images == 2
        check_feature_loss(loss)


def test_a_weighting(tmp_path: Path) -> None:
    with added(WEIGHTINGS, "inverse", WEIGHTING, tmp_path):
        assert "inverse" in list(WEIGHTINGS)
        check_weighting("inverse", scale="direction")


def test_a_source(tmp_path: Path) -> None:
    with added(SOURCES, "squares", SOURCE, tmp_path):
        assert "squares" in list(SOURCES)
        with raises(ot.BadInput, got="square:8", available=["squares:"]):
            open_source("square:8", SourceOptions())
        domain = ot.Domain("squares", "squares:40", size=8)
        assert domain.tasks[0].classes == ("green", "red")
        assert len(domain.train) > 0
        check_source(lambda: open_source("squares:40", SourceOptions()))


def test_a_sampler(tmp_path: Path) -> None:
    with added(SAMPLERS, "alternate", SAMPLER, tmp_path):
        assert "alternate" in list(SAMPLERS)
        check_sampler("alternate")
        assert ot.Train(sampling="alternate").sampling == "alternate"
    with raises(ot.BadInput, got="alternate", available=["round-robin", "joined"]):
        ot.Train(sampling="alternate")


def test_what_a_sampler_can_do_is_asked_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = dedent(SAMPLER).replace("joined = False", "joined = True")
    (tmp_path / "samplers_of_mine.py").write_text(lines)
    (tmp_path / "half_a_sampler.py").write_text("class Half:\n    joined = False\n")
    monkeypatch.syspath_prepend(tmp_path)
    tables = [{"name": n, "source": "pocket:optdigits", "size": s} for n, s in (("a", 8), ("b", 9))]
    for name, facts in (
        ("samplers_of_mine:Alternate", ["train.sampling", "a 8×8", "b 9×9"]),
        ("half_a_sampler:Half", ["train.sampling", "steps_per_epoch"]),
    ):
        trunk = {"arch": "resnet20"}
        document = {"name": "two", "trunk": trunk, "domains": tables, "train": {"sampling": name}}
        with raises(ot.BadInput, *facts):
            check(ot.Recipe.of(document))


def test_an_aligner(tmp_path: Path) -> None:
    with added(ALIGNERS, "scaled", ALIGNER, tmp_path):
        assert "scaled" in list(ALIGNERS)
        assert make_aligner("scaled", 4, 4)(torch.ones(2, 4)).shape == (2, 4)
    with raises(ot.BadInput, got="scaled", available=["linear", "hidden"]):
        ot.Distill(aligner="scaled")


def test_an_aligner_of_another_width_is_refused() -> None:
    with raises(ot.BadInput, "identity", "(3, 8)", got="(3, 4)"):
        make_aligner("tests.contract.test_extension_cost:identity", 4, 8)


def identity(student: int, teacher: int) -> torch.nn.Module:
    """An aligner that maps nothing."""
    del student, teacher
    return torch.nn.Identity()
