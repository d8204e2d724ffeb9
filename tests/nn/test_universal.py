"""The universal network's calls, and what it says to bad input."""

import copy

import pytest
import torch

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.testing import NAMES, build, domain, far, images


@pytest.fixture(scope="module")
def model():
    return build(lambda: Trunk("resnet20"), 32)


BAD = {
    "unknown domain": (
        lambda m: m(images(2, 32), "ant"),
        r"unknown domain.*'ant'; available: ants",
    ),
    "unknown in a list": (lambda m: m(images(2, 32), ["ants", "dogs"]), r"'dogs'; exists"),
    "too short a list": (lambda m: m(images(3, 32), ["ants"]), "1 domains for 3 images"),
    "too long an index": (lambda m: m(images(3, 32), torch.zeros(4).long()), "one number per"),
    "one image": (lambda m: m(images(2, 32)[0], "ants"), r"3×32×32'; try: images\[None\]"),
    "grey images": (lambda m: m(images(2, 32)[:, :1], "ants"), "2×1×32×32"),
    "8-bit images": (lambda m: m(images(2, 32).byte(), "ants"), "uint8'; try: domain.pixels"),
    "not normalized": (lambda m: m(images(2, 32).abs() * 255, "ants"), "expected normalized"),
    "NaN": (lambda m: m(images(2, 32) * float("nan"), "ants"), "expected normalized"),
    "an array": (lambda m: m(images(2, 32).numpy(), "ants"), "ndarray'; try: model.predict"),
    "nothing": (lambda m: m(images(2, 32)[:0], "ants"), "an empty batch"),
    "no list": (lambda m: m([], []), "an empty batch"),
    "remove unknown": (lambda m: m.remove("antz"), "'antz'; available: ants"),
    "pack unknown": (lambda m: m.pack("antz"), "'antz'; available: ants"),
    "fold unknown": (lambda m: m.for_domain("antz"), "'antz'; available: ants"),
    "index unknown": (lambda m: m.index(["antz"]), "'antz'; available: ants"),
    "learn unknown": (lambda m: m.learn_only("antz"), "'antz'; available: ants"),
    "twice": (lambda m: m.add_domain(domain("ants")), "there already"),
    "unknown task": (lambda m: m.domains["ants"].task("clasify"), "available: classify"),
    "no head": (lambda m: m.heads_of("ants").head("segment"), "available: classify"),
    "second model": (lambda m: Universal(m.trunk, [domain("z")]), "belongs to one model"),
    "heads for nobody": (lambda _: Universal(Trunk("resnet20"), [], {"a": {}}), "not there"),
    "pairing": (lambda _: Universal(Trunk("resnet20"), [], pair="luck"), "'luck'; available: name"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_in_one_line(model, case):
    call, says = BAD[case]
    with pytest.raises(BadInput, match=says) as caught:
        call(model)
    assert "\n" not in str(caught.value)
    assert list(model.domains) == list(NAMES)


def test_sizes_that_a_trunk_cannot_take():
    for arch, size in (("timm/levit_128s", 64), ("timm/test_vit", 8)):
        model = Universal(Trunk(arch))
        with pytest.raises(BadInput, match=f"cannot take images of {size}×{size}"):
            model.add_domain(domain("small", size))
        assert not model.domains
        assert not any(len(bank.slots) for bank in model.trunk.banks().values())


def test_images_of_several_sizes_go_in_one_pass_each(model):
    sizes = [(32, 32), (40, 24), (32, 32), (40, 24)]
    order = ["bees", "ants", "ants", "cats"]
    pictures = [images(1, size, seed)[0] for seed, size in enumerate(sizes)]
    with torch.no_grad():
        predictions = model(pictures, order)
        for picture, name, prediction in zip(pictures, order, predictions, strict=True):
            alone = model(picture[None], name)["classify"][0]
            assert far(prediction["classify"], alone) < 1e-5


def test_the_index_form_runs_eagerly_too(model):
    x, order = images(4, 32), ["cats", "ants", "cats", "bees"]
    with torch.no_grad():
        by_index = model(x, model.index(order))
        by_name = model(x, order)
    for i, name in enumerate(order):
        assert far(by_index[name]["classify"][i], by_name[i]["classify"]) < 1e-5


def test_an_index_has_no_segments_to_take_statistics_of():
    model = build(lambda: Trunk("resnet20"), 32)
    index = model.index(["ants", "bees"])
    with pytest.raises(Failed, match="only by segments"):
        model.train()(images(2, 32), index)


@pytest.mark.parametrize(("arch", "size"), [("resnet26", 32), ("timm/test_vit", 64)])
def test_adapters_by_index(arch, size):
    model = build(lambda: Trunk(arch, adapters="parallel"), size)
    x, order = images(3, size), ["cats", "ants", "cats"]
    with torch.no_grad():
        by_index = model(x, model.index(order))
        for i, name in enumerate(order):
            alone = model(x[i : i + 1], name)["classify"][0]
            assert far(by_index[name]["classify"][i], alone) < 1e-5


def test_the_shared_tensors_come_back_from_a_file():
    model, other = build(lambda: Trunk("resnet20"), 32), Trunk("resnet20")
    other.load_shared({k: v.detach().clone() for k, v in model.trunk.shared().items()})
    assert other.fingerprint() == model.trunk.fingerprint()
    with pytest.raises(BadInput, match="trunk resnet20: it lacks tensors"):
        other.load_shared({})


def test_every_kind_of_task_at_an_odd_size():
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
    model.add_domain(domain("b", (65, 71)))
    with torch.no_grad():
        out = model(images(2, (65, 71)), "a")
        mixed = model(images(2, (65, 71)), ["b", "a"])
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


def test_full_sharing_pairs_classes_by_name():
    trunk = Trunk("resnet20", sharing="full", norm="shared")
    model = Universal(
        trunk,
        [
            domain("a", classes=("x", "y", "z")),
            domain("b", classes=("z", "x", "y")),
            domain("c", classes=("u", "v", "w")),
        ],
    ).eval()
    x = images(2, 32)
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
    assert not twin(x, "b")["classify"].any()
    assert torch.equal(model(x, "b")["classify"], b)


def test_full_sharing_pairs_by_index_only_when_asked():
    domains = [domain("a", classes=("x", "y")), domain("b", classes=("u", "v"))]
    model = Universal(Trunk("resnet20", sharing="full", norm="shared"), domains, pair="index")
    x = images(2, 32)
    model.eval()
    assert torch.equal(model(x, "a")["classify"], model(x, "b")["classify"])


def test_a_specialist_is_alone():
    model = Universal(Trunk("resnet20", sharing="none", norm="shared"), [domain("a")])
    assert not model.shared_parameters()
    assert len(model.parameters_of("a")) == len(list(model.parameters()))
    with pytest.raises(BadInput, match="network of its own"):
        model.add_domain(domain("b"))


def test_learning_alone_keeps_the_rest_in_evaluation():
    model = build(lambda: Trunk("timm/test_vit", adapters="lora"), 64)
    model.trunk.net.blocks[0].mlp.drop1.p = 0.9
    model.learn_only("bees")
    model.train()
    with torch.no_grad():
        x = images(2, 64)
        assert torch.equal(model(x, "bees")["classify"], model(x, "bees")["classify"])
    assert not model.trunk.net.blocks[0].mlp.drop1.training
    learns = {k for k, p in model.named_parameters() if p.requires_grad}
    assert learns
    assert all(".bees." in key for key in learns)
    model.learn_only(None)
    assert model.trunk.net.blocks[0].mlp.drop1.training
    assert all(p.requires_grad for p in model.shared_parameters().values())
    for bank in model.trunk.banks().values():  # templates never learn
        if hasattr(bank, "origin"):
            assert not any(p.requires_grad for p in bank.origin.parameters())


def test_a_trunk_that_mixes_images_refuses_mixed_batches(monkeypatch):
    model = build(lambda: Trunk("resnet20"), 32)
    net = model.trunk.net
    plain = net.forward_pyramid
    monkeypatch.setattr(net, "forward_pyramid", lambda x: plain(x + x.mean(0, keepdim=True)))
    with pytest.raises(BadInput, match="mixes the images of a batch"):
        model(images(3, 32), ["ants", "bees", "ants"])
    model(images(3, 32), "ants")
