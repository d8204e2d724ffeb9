"""Heads: the outputs of each kind, the decoder against its formula, odd sizes, users' heads."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onetrunk.data.task import KINDS, Task
from onetrunk.errors import BadInput
from onetrunk.nn import networks as nets
from onetrunk.nn.decoder import Decoder, choose_levels
from onetrunk.nn.heads import EMBED, Heads, finish, make_head
from onetrunk.nn.segnet import SegNet
from tests.helpers.errors import raises

ALL = (
    Task("kind", "classify", ("a", "b", "c")),
    Task("tags", "multilabel", ("x", "y")),
    Task("age", "regress", outputs=2),
    Task("near", "embed", ("a", "b")),
    Task("parts", "segment", ("sky", "sea", "land")),
    Task("depth", "depth"),
    Task("normals", "normals"),
)
RESNET20 = [(16, 1), (16, 1), (32, 2), (64, 4)]


def predict(net: nets.ResNet | SegNet, heads: Heads, x: Tensor) -> dict[str, Tensor]:
    maps = net.forward_pyramid(x)
    out: dict[str, Tensor] = heads(net.pooled(maps), maps, x.shape[-2:])
    return out


@pytest.mark.parametrize("name", nets.NAMES)
@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_every_kind_on_every_trunk_at_odd_sizes(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = nets.build(name).eval()
    pyramid = [(s.channels, s.reduction) for s in net.stages]
    heads = Heads(ALL, net.num_features, pyramid, decoded=net.decoded).eval()
    out = predict(net, heads, torch.randn(2, 3, *size))
    assert list(out) == [task.name for task in ALL]
    shapes = {name: tuple(value.shape) for name, value in out.items()}
    assert shapes == {
        "kind": (2, 3),
        "tags": (2, 2),
        "age": (2, 2),
        "near": (2, EMBED),
        "parts": (2, 3, *size),
        "depth": (2, 1, *size),
        "normals": (2, 3, *size),
    }
    torch.testing.assert_close(out["near"].norm(dim=1), torch.ones(2))
    torch.testing.assert_close(out["normals"].norm(dim=1), torch.ones(2, *size))
    assert {task.kind for task in ALL} == set(KINDS)


def test_one_scale_of_a_transformer() -> None:
    heads = Heads(ALL, 24, [(24, 16)] * 3)
    maps = [torch.randn(2, 24, 3, 4) for _ in range(3)]
    out = heads(torch.randn(2, 24), maps, (45, 61))
    assert out["parts"].shape == (2, 3, 45, 61)
    assert heads.decoder is not None
    assert heads.decoder.levels == (2,)  # the deepest of the three


def test_decoded_levels() -> None:
    assert choose_levels([r for _, r in RESNET20]) == (2, 3)
    assert choose_levels([2, 2, 4, 8, 16]) == (1, 2, 3, 4)
    assert choose_levels([1]) == (0,)
    with raises(BadInput, "feature maps"):
        choose_levels([])


def test_the_decoder_by_hand() -> None:
    torch.manual_seed(0)
    decoder = Decoder(RESNET20, width=8).double().eval()
    nn.init.normal_(decoder.norm.weight)
    nn.init.normal_(decoder.get_buffer("norm.running_mean"))
    maps = [torch.randn(2, c, -(-19 // r), -(-26 // r), dtype=torch.float64) for c, r in RESNET20]

    def lateral(level: int, x: Tensor) -> Tensor:
        weight = decoder.get_parameter(f"laterals.{level}.weight")
        return torch.einsum("bchw,oc->bohw", x, weight[:, :, 0, 0])

    up = F.interpolate(lateral(1, maps[3]), size=(10, 13), mode="bilinear")
    y = F.conv2d(lateral(0, maps[2]) + up, decoder.conv.weight, padding=1)
    n = decoder.norm
    mean, var = n.get_buffer("running_mean"), n.get_buffer("running_var")
    y = (y - mean[:, None, None]) / (var[:, None, None] + n.eps).sqrt()
    y = (n.weight[:, None, None] * y + n.bias[:, None, None]).relu()
    torch.testing.assert_close(decoder(maps), y, rtol=1e-12, atol=1e-12)


def test_dense_tasks_of_a_domain_share_one_decoder() -> None:
    heads = Heads(ALL, 64, RESNET20)
    alone = Heads(ALL[4:5], 64, RESNET20)
    assert sum(isinstance(m, Decoder) for m in heads.modules()) == 1
    assert alone.decoder is not None
    assert not alone.needs_pooled
    plain = Heads(ALL[:1], 64, RESNET20)
    assert plain.decoder is None
    assert plain(torch.randn(2, 64), [], (8, 8))["kind"].shape == (2, 3)


def test_samples_are_independent_and_their_order_does_not_matter() -> None:
    torch.manual_seed(0)
    net = nets.build("resnet20").double().eval()
    heads = Heads(ALL, 64, RESNET20).double().eval()
    x = torch.randn(3, 3, 17, 20, dtype=torch.float64)
    out, turned = predict(net, heads, x), predict(net, heads, x.flip(0))
    for name in out:
        torch.testing.assert_close(turned[name].flip(0), out[name], rtol=1e-12, atol=1e-12)


class Double(nn.Module):
    """A user's head."""

    def __init__(self, task: Task, inside: int) -> None:
        super().__init__()
        self.first = nn.LazyLinear(8) if not task.dense else nn.LazyConv2d(8, 1)
        self.second = (nn.Linear if not task.dense else lambda i, o: nn.Conv2d(i, o, 1))(
            8, task.width
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x).relu())
        return y


def test_users_heads() -> None:
    heads = Heads(ALL, 64, RESNET20, own={"kind": f"{__name__}:Double", "parts": Double})
    out = predict(nets.build("resnet20"), heads, torch.randn(2, 3, 20, 20))
    assert isinstance(heads.head("kind"), Double)
    assert out["kind"].shape == (2, 3)
    assert out["parts"].shape == (2, 3, 20, 20)


def test_a_task_may_have_the_name_of_a_method() -> None:
    heads = Heads([Task("keys", "classify", ("a", "b"))], 4, [])
    assert heads(torch.randn(1, 4), [], (1, 1))["keys"].shape == (1, 2)


def test_bad_input() -> None:
    names = [task.name for task in ALL]
    with raises(BadInput, "kind", "classify", got="0 classes, 1 outputs"):
        make_head(Task("kind", "classify"), 8)
    with raises(BadInput, "nowhere"):
        make_head(ALL[0], 8, "nowhere.at.all:thing")
    with raises(BadInput, __name__, got="Nothing", available=["Double"]):
        make_head(ALL[0], 8, f"{__name__}:Nothing")
    with raises(BadInput, got="kond", available=names):
        Heads(ALL, 64, RESNET20, own={"kond": Double})
    with raises(BadInput, got="kond", available=names):
        Heads(ALL, 64, RESNET20).head("kond")


def test_normals_keep_their_length_after_resizing() -> None:
    normals = finish(ALL[-1], torch.randn(1, 3, 4, 4), (9, 7))
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(1, 9, 7))
