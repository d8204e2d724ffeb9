"""Built-in networks: published parameter counts, shapes of stages, slow references."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onetrunk.errors import BadInput
from onetrunk.nn import networks as nets
from tests.helpers.errors import raises


def convolutions(net: nn.Module) -> int:
    return sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet20", 267_696),  # He et al. 2016: 0.27 M
        ("resnet26", 5_806_944),  # Rebuffi et al. 2017
        ("resnet38", 5_580_720),
        ("resnet18-84", 11_162_304),
        # Li, Liu & Bilen 2022 count 24,981,069 with a head of 13 classes, norms and biases
        ("segnet", 24_981_069 - 7_168 * 3 - 37_773),
    ],
)
def test_parameter_counts_of_the_papers(name: str, count: int) -> None:
    assert convolutions(nets.build(name)) == count


@pytest.mark.parametrize("name", nets.NAMES)
@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_shapes_of_the_maps_of_each_stage(name: str, size: tuple[int, int]) -> None:
    net = nets.build(name).eval()
    x = torch.randn(2, 3, *size)
    maps = net.forward_pyramid(x)
    assert net.stages[0].name == "stem"
    assert len(net.stages) == len(maps)
    for stage, output in zip(net.stages, maps, strict=True):
        assert output.shape[:2] == (2, stage.channels)
        for got, side in zip(output.shape[2:], size, strict=True):
            assert abs(got - math.ceil(side / stage.reduction)) <= 1
    assert net(x).shape == (2, net.num_features)


def test_stages_own_all_parameters_once() -> None:
    for name in nets.NAMES:
        net = nets.build(name)
        owned = [
            id(p) for stage in net.stages for p in net.get_submodule(stage.module).parameters()
        ]
        assert sorted(owned) == sorted(id(p) for p in net.parameters())


def test_meta_dataset_images_of_84_give_512_features() -> None:
    net = nets.build("resnet18-84").eval()
    maps = net.forward_pyramid(torch.randn(1, 3, 84, 84))
    assert [m.shape[-1] for m in maps] == [41, 41, 21, 11, 6]
    assert net.num_features == 512


def test_resnet26_by_hand() -> None:
    torch.manual_seed(0)
    net = nets.build("resnet26").double().train()
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    want = net.forward_pyramid(x)[-1]

    def norm(y: torch.Tensor) -> torch.Tensor:  # initial scale 1 and bias 0, batch statistics
        mean, var = y.mean((0, 2, 3), True), y.var((0, 2, 3), unbiased=False, keepdim=True)
        return (y - mean) / (var + 1e-5).sqrt()

    w = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)]
    y = norm(F.conv2d(x, w[0], padding=1))  # no activation behind the stem
    for unit in range(12):
        stride = 2 if unit % 4 == 0 else 1
        a = norm(F.conv2d(y, w[1 + 2 * unit], stride=stride, padding=1)).relu()
        b = norm(F.conv2d(a, w[2 + 2 * unit], padding=1))
        if stride == 2:
            y = F.avg_pool2d(y, 2)
            y = torch.cat((y, torch.zeros_like(y)), 1)
        y = (b + y).relu()
    torch.testing.assert_close(norm(y).relu(), want, rtol=1e-10, atol=1e-10)


def test_shortcuts_subsample_and_pad_with_zeros() -> None:
    x = torch.arange(2 * 9.0).reshape(1, 2, 3, 3)
    sliced = nets.Shortcut(1, 2, "slice")(x)
    assert sliced[0, 0].tolist() == [[0.0, 2.0], [6.0, 8.0]]
    assert sliced[0, 2].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    pooled = nets.Shortcut(1, 2, "pool")(x)
    assert pooled[0, 0].tolist() == [
        [2.0, 3.5],
        [6.5, 8.0],
    ]  # at the odd edge, the mean of fewer pixels
    assert pooled.shape == (1, 3, 2, 2)


def test_he_initialisation() -> None:
    torch.manual_seed(0)
    weight = nets.build("resnet26").get_parameter("stage3.unit2.conv1.weight")
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)
    assert abs(weight.mean().item()) < 1e-3


def test_seeded_by_torch_and_other_channels() -> None:
    torch.manual_seed(1)
    first = nets.build("resnet20").state_dict()
    torch.manual_seed(1)
    second = nets.build("resnet20").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert nets.build("resnet20", in_chans=1)(torch.randn(2, 1, 8, 8)).shape == (2, 64)


def test_bad_input() -> None:
    with raises(BadInput, got="resnet-26", available=nets.NAMES, try_="timm/"):
        nets.build("resnet-26")
    with raises(BadInput, "channel", got=0):
        nets.build("resnet20", in_chans=0)
