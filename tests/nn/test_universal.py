"""The universal network: calls, bad input, full sharing, training of one domain."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.testing.models import NAMES, difference, make_domain, make_images, make_model
from tests.helpers.errors import raises


@pytest.fixture(scope="module")
def model() -> Universal:
    return make_model(lambda: Trunk("resnet20"), 32)


X = make_images(2, 32)
ANTS: dict[str, Any] = {"got": "antz", "available": NAMES}
BAD: dict[str, tuple[Callable[[Any], object], list[str], dict[str, Any]]] = {
    "unknown domain": (lambda m: m(X, "antz"), [], ANTS),
    "unknown in a list": (lambda m: m(X, ["ants", "antz"]), [], ANTS),
    "a short list": (
        lambda m: m(make_images(3, 32), ["ants"]),
        [],
        {"got": "1 domains for 3 images"},
    ),
    "a long index": (lambda m: m(X, torch.zeros(4).long()), ["index"], {"got": (4,)}),
    "one image": (lambda m: m(X[0], "ants"), [], {"got": "3×32×32", "try_": "images[None]"}),
    "grey images": (lambda m: m(X[:, :1], "ants"), [], {"got": "2×1×32×32"}),
    "8-bit images": (
        lambda m: m(X.byte(), "ants"),
        [],
        {"got": "torch.uint8", "try_": "normalize"},
    ),
    "not normalized": (lambda m: m(X.abs() * 255, "ants"), ["normalized"], {"try_": "normalize"}),
    "NaN": (lambda m: m(X * float("nan"), "ants"), ["normalized", "nan"], {}),
    "an array": (lambda m: m(X.numpy(), "ants"), [], {"got": "ndarray", "try_": "model.predict"}),
    "no image": (lambda m: m(X[:0], "ants"), [], {"got": "an empty batch"}),
    "an empty list": (lambda m: m([], []), [], {"got": "an empty batch"}),
    "remove unknown": (lambda m: m.remove("antz"), [], ANTS),
    "pack unknown": (lambda m: m.pack("antz"), [], ANTS),
    "fold unknown": (lambda m: m.for_domain("antz"), [], ANTS),
    "index unknown": (lambda m: m.index(["antz"]), [], ANTS),
    "train unknown": (lambda m: m.learn_only("antz"), [], ANTS),
    "twice": (lambda m: m.add_domain(make_domain("ants")), [], {"got": "ants", "try_": "remove"}),
    "unknown task": (
        lambda m: m.domains["ants"].task("clasify"),
        ["ants"],
        {"got": "clasify", "available": ["classify"]},
    ),
    "no head": (
        lambda m: m.heads_of("ants").head("segment"),
        [],
        {"got": "segment", "available": ["classify"]},
    ),
    "a second model": (lambda m: Universal(m.trunk), ["one model"], {"try_": "deepcopy"}),
    "unknown heads": (lambda _: Universal(Trunk("resnet20"), [], {"a": {}}), [], {"got": "a"}),
    "unknown pairing": (
        lambda _: Universal(Trunk("resnet20"), [], pair="luck"),
        [],
        {"got": "luck", "available": ["name", "index"]},
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(model: Universal, case: str) -> None:
    call, facts, fields = BAD[case]
    with raises(BadInput, *facts, **fields) as error:
        call(model)
    assert "\n" not in str(error.value)
    assert list(model.domains) == list(NAMES)


def test_sizes_that_a_trunk_cannot_take() -> None:
    for arch, size in (("timm/levit_128s", 64), ("timm/test_vit", 8)):
        model = Universal(Trunk(arch))
        with raises(BadInput, "small", arch, f"{size}×{size}"):
            model.add_domain(make_domain("small", size))
        assert not model.domains
        assert not any(len(bank.slots) for bank in model.trunk.banks().values())


def test_images_of_several_sizes(model: Universal) -> None:
    sizes = [(32, 32), (40, 24), (32, 32), (40, 24)]
    order = ["bees", "ants", "ants", "cats"]
    pictures = [make_images(1, size, seed)[0] for seed, size in enumerate(sizes)]
    with torch.no_grad():
        predictions = model(pictures, order)
        for picture, name, prediction in zip(pictures, order, predictions, strict=True):
            alone = model(picture[None], name)["classify"][0]
            assert difference(prediction["classify"], alone) < 1e-5


def test_an_index_without_a_compiler(model: Universal) -> None:
    x, order = make_images(4, 32), ["cats", "ants", "cats", "bees"]
    with torch.no_grad():
        by_index = model(x, model.index(order))
        by_name = model(x, order)
    for i, name in enumerate(order):
        assert difference(by_index[name]["classify"][i], by_name[i]["classify"]) < 1e-5


def test_an_index_cannot_be_trained_with_batch_norms() -> None:
    model = make_model(lambda: Trunk("resnet20"), 32)
    index = model.index(["ants", "bees"])
    with raises(Failed, "segments", try_="a list of names"):
        model.train()(make_images(2, 32), index)


@pytest.mark.parametrize(("arch", "size"), [("resnet26", 32), ("timm/test_vit", 64)])
def test_adapters_by_index(arch: str, size: int) -> None:
    model = make_model(lambda: Trunk(arch, adapters="parallel"), size)
    x, order = make_images(3, size), ["cats", "ants", "cats"]
    with torch.no_grad():
        by_index = model(x, model.index(order))
        for i, name in enumerate(order):
            alone = model(x[i : i + 1], name)["classify"][0]
            assert difference(by_index[name]["classify"][i], alone) < 1e-5


def test_loading_shared_tensors() -> None:
    model, other = make_model(lambda: Trunk("resnet20"), 32), Trunk("resnet20")
    other.load_shared({k: v.detach().clone() for k, v in model.trunk.shared().items()})
    assert other.fingerprint() == model.trunk.fingerprint()
    with raises(BadInput, "trunk resnet20", "missing"):
        other.load_shared({})


def test_every_kind_of_task_at_an_odd_size() -> None:
    tasks = [
        Task("what", "classify", ("x", "y")),
        Task("tags", "multilabel", ("p", "q", "r")),
        Task("how-many", "regress", outputs=2),
        Task("like", "embed", ("x", "y")),
        Task("parts", "segment", ("p", "q")),
        Task("again", "segment", ("p", "q", "r")),
        Task("far", "depth"),
        Task("up", "normals"),
    ]
    model = Universal(Trunk("timm/test_resnet"), [Domain("a", None, tasks, size=(65, 71))]).eval()
    model.add_domain(make_domain("b", (65, 71)))
    with torch.no_grad():
        out = model(make_images(2, (65, 71)), "a")
        mixed = model(make_images(2, (65, 71)), ["b", "a"])
    shapes = {name: tuple(value.shape[1:]) for name, value in out.items()}
    assert shapes == {
        "what": (2,),
        "tags": (3,),
        "how-many": (2,),
        "like": (128,),
        "parts": (2, 65, 71),
        "again": (3, 65, 71),
        "far": (1, 65, 71),
        "up": (3, 65, 71),
    }
    assert {k: tuple(v.shape) for k, v in mixed[1].items()} == shapes
    assert set(mixed[0]) == {"classify"}


def test_full_sharing_pairs_classes_by_name() -> None:
    trunk = Trunk("resnet20", sharing="full", norm="shared")
    model = Universal(
        trunk,
        [
            make_domain("a", classes=("x", "y", "z")),
            make_domain("b", classes=("z", "x", "y")),
            make_domain("c", classes=("u", "v", "w")),
        ],
    ).eval()
    x = make_images(2, 32)
    with torch.no_grad():
        a, b, c = (model(x, name)["classify"] for name in "abc")
        assert torch.equal(a, b[:, [1, 2, 0]])
        assert not torch.equal(a, c)
        plain = model.for_domain("b", fold=False)
        assert torch.equal(plain(x)["classify"], b)
    assert not [k for k in model.parameters_of("b") if k.startswith("heads/")]
    twin = copy.deepcopy(model)
    for parameter in twin.shared_parameters().values():
        parameter.data.zero_()
    with torch.no_grad():  # as above: gradients need another layout, which rounds differently
        assert not twin(x, "b")["classify"].any()
        assert torch.equal(model(x, "b")["classify"], b)


def test_full_sharing_pairs_classes_by_index_on_request() -> None:
    domains = [make_domain("a", classes=("x", "y")), make_domain("b", classes=("u", "v"))]
    model = Universal(Trunk("resnet20", sharing="full", norm="shared"), domains, pair="index")
    x = make_images(2, 32)
    model.eval()
    assert torch.equal(model(x, "a")["classify"], model(x, "b")["classify"])


def test_without_sharing_a_model_has_one_domain() -> None:
    model = Universal(Trunk("resnet20", sharing="none", norm="shared"), [make_domain("a")])
    assert not model.shared_parameters()
    assert len(model.parameters_of("a")) == len(list(model.parameters()))
    with raises(BadInput, "none", got="b beside a"):
        model.add_domain(make_domain("b"))


def test_training_one_domain_keeps_the_rest_in_evaluation_mode() -> None:
    model = make_model(lambda: Trunk("timm/test_vit", adapters="lora"), 64)
    dropout = model.trunk.net.get_submodule("blocks.0.mlp.drop1")
    assert isinstance(dropout, nn.Dropout)
    dropout.p = 0.9
    model.learn_only("bees")
    model.train()
    with torch.no_grad():
        x = make_images(2, 64)
        assert torch.equal(model(x, "bees")["classify"], model(x, "bees")["classify"])
    assert not dropout.training
    learns = {k for k, p in model.named_parameters() if p.requires_grad}
    assert learns
    assert all(".bees." in key for key in learns)
    model.learn_only(None)
    assert dropout.training
    assert all(p.requires_grad for p in model.shared_parameters().values())
    for bank in model.trunk.banks().values():  # templates are never trained
        if hasattr(bank, "origin"):
            assert not any(p.requires_grad for p in bank.origin.parameters())


def test_a_trunk_that_mixes_images_refuses_mixed_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(lambda: Trunk("resnet20"), 32)
    net = model.trunk.net
    plain = net.forward_pyramid
    assert callable(plain)
    monkeypatch.setattr(net, "forward_pyramid", lambda x: plain(x + x.mean(0, keepdim=True)))
    with raises(BadInput, "resnet20", got="a mixed batch", try_="one domain per call"):
        model(make_images(3, 32), ["ants", "bees", "ants"])
    model(make_images(3, 32), "ants")
