"""Folding: equal outputs with every norm and adapter, and the reasons for layers that stay."""

import copy
from typing import Any, cast

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from onetrunk.data.task import Task
from onetrunk.nn import merge_kernels as merge
from onetrunk.nn import networks as nets
from onetrunk.nn.fold import FoldReport, fold
from onetrunk.nn.heads import Heads
from onetrunk.nn.trunk import Trunk

SIZE = (32, 32)


def calibrate(module: nn.Module, size: tuple[int, int] = SIZE) -> nn.Module:
    """Set statistics by passes in training, and change scales and adapters."""
    torch.manual_seed(1)
    for name, parameter in module.named_parameters():
        if "adapter" in name or "norm" in name or "bn" in name:
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = 0.7
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(4, 3, *size))
    return module.eval()


def plain(arch: str, norm: str = "domain", adapters: str = "none", size: int = 32) -> nn.Module:
    """Return the plain trunk of one domain."""
    torch.manual_seed(0)
    trunk = Trunk(arch, norm=norm, adapters=adapters)
    trunk.attach("a", trunk.make_slots(adapters))
    trunk.measure("a", (size, size))
    return calibrate(trunk.plain("a"), (size, size))


def check_equal(
    module: nn.Module, folded: nn.Module, size: tuple[int, int], rtol: float = 1e-4
) -> None:
    x = torch.randn(3, 3, *size)
    with torch.no_grad():
        pairs = zip(tree_leaves(folded(x)), tree_leaves(module(x)), strict=True)
        for got, want in pairs:
            assert (got - want).abs().max() <= rtol * want.abs().max()


def count(module: nn.Module, *kinds: type[nn.Module]) -> int:
    return sum(isinstance(part, kinds) for part in module.modules())


@pytest.mark.parametrize("adapters", ["none", "parallel", "series", "lora"])
def test_only_convolutions_remain(adapters: str) -> None:
    arch = "resnet20" if adapters in ("none", "series") else "resnet18-84"
    module = plain(arch, adapters=adapters)
    folded, report = fold(module, [SIZE])
    check_equal(module, folded, SIZE)
    check_equal(module, folded, (41, 29))  # correct for any size here
    assert not report.left
    assert count(folded, nn.BatchNorm2d) == 0
    assert (report.adapters > 0) == (adapters != "none")
    assert report.error < 1e-10
    bare = nets.build(arch)
    assert report.parameters == sum(p.numel() for p in folded.parameters())
    assert report.parameters <= sum(p.numel() for p in bare.parameters())


@pytest.mark.parametrize(
    ("norm", "stays"),
    [
        ("shared", 0),
        ("domain-stats", 0),
        ("shared-batch", 19),
        ("instance", 19),
        ("instance-domain", 19),
    ],
)
def test_norms(norm: str, stays: int) -> None:
    module = plain("resnet20", norm)
    folded, report = fold(module, [SIZE])
    check_equal(module, folded, SIZE)
    assert (report.norms, len(report.left)) == (19 - stays, stays)
    for left in report.left:
        source = "batch's own" if norm == "shared-batch" else "each image itself"
        assert source in left.reason
        assert f"not merged: {left.name}" in str(report)


@pytest.mark.parametrize(
    ("arch", "adapters", "folds", "stays"),
    [
        ("timm/test_resnet", "parallel", 15, ()),
        ("timm/test_efficientnet", "series", 13, ()),
        ("timm/test_convnext", "parallel", 0, ("LayerNorm",)),
        ("timm/test_vit", "parallel", 0, ("LayerNorm",)),
        ("timm/test_vit", "series", 0, ("LayerNorm", "Series")),
    ],
)
def test_timm(arch: str, adapters: str, folds: int, stays: tuple[str, ...]) -> None:
    size = 160 if "vit" in arch else 32
    module = plain(arch, adapters=adapters, size=size)
    folded, report = fold(module, [(size, size)])
    check_equal(module, folded, (size, size))
    assert report.norms == folds
    assert {left.kind.removesuffix("2d") for left in report.left} == {
        kind.removesuffix("2d") for kind in stays
    }


def test_linear_flatten_norm_and_cached_tensors() -> None:
    # levit: BatchNorm1d behind a flattened linear layer; its attention caches biases of a pass
    module = calibrate(timm.create_model("levit_128s", num_classes=0), (224, 224))
    folded, report = fold(module, [(224, 224)])
    check_equal(module, folded, (224, 224))
    assert report.norms == 50
    assert [left.kind for left in report.left] == []


class SameNet(nn.Module):
    """SAME padding at stride 2, with an adapter."""

    def __init__(self) -> None:
        super().__init__()
        from timm.layers.conv2d_same import Conv2dSame

        from onetrunk.nn.adapters import Adapted
        from onetrunk.nn.adapters.parallel import Parallel

        self.adapted = Adapted(
            Conv2dSame(3, 8, 3, 2, bias=False), Parallel(nn.Conv2d(3, 8, 1, 2, bias=False))
        )
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.adapted(x))
        return y


def test_same_padding_at_stride_two_depends_on_the_parity_of_the_size() -> None:
    torch.manual_seed(0)
    module = calibrate(SameNet())
    for size in ((32, 32), (33, 31), (32, 31)):
        folded, report = fold(module, [size])
        assert (report.adapters, report.norms, report.left) == (1, 1, ())
        check_equal(module, folded, size)
    folded, report = fold(module, [(32, 32), (33, 33)])
    check_equal(module, folded, (32, 32))
    check_equal(module, folded, (33, 33))
    assert (report.left[0].kind, report.left[0].reason) == (
        "Parallel",
        "which tap reads its pixel depends on the size",
    )


class Unfoldable(nn.Module):
    """Pairs that must not be merged: something else reads the input of each norm."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.other = nn.BatchNorm2d(3)
        if way == "tied":
            self.twin = nn.Conv2d(3, 3, 3, padding=1)
            self.twin.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y: Tensor = self.conv(x)
        z: Tensor = self.norm(y)
        out: Tensor
        if self.way == "read":
            return z + y.mean()
        if self.way == "returned":
            return z, y
        if self.way == "twice":
            out = z + self.norm(self.conv(z))
            return out
        if self.way == "tied":
            out = z + self.twin(x)
            return out
        if self.way == "weight read":
            return z + self.conv.weight.mean()
        if self.way == "functional":
            return z + F.batch_norm(y, self.other.running_mean, self.other.running_var)
        out = self.other(F.pad(z, (1, 1, 1, 1)))  # "before padding": the second one stays
        return out


@pytest.mark.parametrize(
    ("way", "norms"),
    [
        ("read", 0),
        ("returned", 0),
        ("twice", 0),
        ("tied", 0),
        ("weight read", 0),
        ("functional", 0),
        ("before padding", 1),
    ],
)
def test_norms_whose_input_is_read_elsewhere_stay(way: str, norms: int) -> None:
    module = calibrate(Unfoldable(way))
    folded, report = fold(module, [SIZE])
    check_equal(module, folded, SIZE)
    assert report.norms == norms
    assert report.left


def test_by_hand() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
    module = calibrate(nn.Sequential(conv, nn.Dropout(), norm, nn.ReLU()))
    folded, report = fold(module, [(8, 8)])
    mean, var = norm.get_buffer("running_mean").double(), norm.get_buffer("running_var").double()
    weight, bias = folded.get_parameter("0.weight"), folded.get_parameter("0.bias")
    scale = norm.weight.double() / (var + norm.eps).sqrt()
    for channel in range(4):
        want = conv.weight[channel].double() * scale[channel]
        torch.testing.assert_close(weight[channel], want.float())
        shift = norm.bias[channel].double() - scale[channel] * mean[channel]
        torch.testing.assert_close(bias[channel], shift.float())
    assert isinstance(folded.get_submodule("2"), nn.Identity)
    assert isinstance(report, FoldReport)


def test_heads_and_decoder() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nets.build("resnet20")
            tasks = [Task("c", "classify", ("x", "y")), Task("s", "segment", ("p", "q"))]
            self.heads = Heads(tasks, 64, [(s.channels, s.reduction) for s in self.trunk.stages])

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            maps = self.trunk.forward_pyramid(x)
            out: dict[str, Tensor] = self.heads(
                self.trunk.pooled(maps), maps, (x.shape[2], x.shape[3])
            )
            return out

    torch.manual_seed(0)
    module = calibrate(Network())
    folded, report = fold(module, [SIZE])
    check_equal(module, folded, SIZE)
    assert not report.left
    assert report.norms == 20
    assert report.parameters < sum(p.numel() for p in module.parameters())


def test_the_module_does_not_change_and_types_are_kept() -> None:
    torch.manual_seed(0)
    module = calibrate(nets.build("resnet20")).double().train()
    before = copy.deepcopy(module.state_dict())
    folded, _ = fold(module, [SIZE])
    assert module.training
    assert not folded.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert {p.dtype for p in folded.parameters()} == {torch.float64}
    assert all(
        not torch.equal(a, b) or a.data_ptr() != b.data_ptr()
        for a, b in zip(folded.parameters(), module.parameters(), strict=False)
    )


def test_random_statistics() -> None:
    torch.manual_seed(0)
    net = nets.build("resnet26")
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.get_buffer("running_var"), 1e-3, 10)
            nn.init.normal_(part.get_buffer("running_mean"))
    _, report = fold(net, [SIZE])
    assert report.error < 1e-10
    assert report.norms == 25
    assert [left.reason for left in report.left] == [
        "follows add, not a convolution or linear layer"
    ]


def test_identity_norms_do_not_change_weights() -> None:
    conv = nn.Conv2d(3, 4, 3)
    norm = nn.BatchNorm2d(4, eps=1e-30)
    folded, _ = fold(nn.Sequential(conv, norm), [(8, 8)])
    torch.testing.assert_close(folded[0].weight, conv.weight, rtol=0, atol=0)
    assert merge.affine_of_norm(norm).shift_C.abs().max() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "norms", "left"),
    [
        ("resnetv2_50", 32, 17),
        ("densenet121", 59, 62),
        ("seresnet18", 20, 0),
        ("mobilenetv3_small_050", 34, 0),
        ("ghostnet_050", 80, 0),
        ("mixnet_s", 15, 34),
        ("repvgg_a0", 44, 17),
        ("fastvit_t8", 46, 24),
        ("tiny_vit_5m_224", 27, 21),
        ("tresnet_m", 60, 0),
        ("xception41", 84, 0),
        ("efficientvit_m0", 112, 0),
        ("convmixer_768_32", 0, 65),
        ("nfnet_l0", 0, 0),
        ("resmlp_12_224", 0, 25),
    ],
)
def test_families(name: str, norms: int, left: int) -> None:
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=0)
    settings = cast(dict[str, Any], net.default_cfg)
    side: int = settings["input_size"][-1] if settings.get("fixed_input_size") else 96
    module = calibrate(net, (side, side))
    folded, report = fold(module, [(side, side)])
    check_equal(module, folded, (side, side))
    assert report.error < 1e-10
    assert (report.norms, len(report.left)) == (norms, left)
