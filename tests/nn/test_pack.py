"""Packs: what they hold, what is refused, and that a refusal changes nothing."""

import copy
import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.pack import HEADER, KEY, Pack
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.testing import build, domain, images


@pytest.fixture(scope="module")
def model():
    return build(lambda: Trunk("resnet20", adapters="parallel"), 32)


@pytest.fixture(scope="module")
def fresh(model):
    other = copy.deepcopy(model)
    for name in list(other.domains):
        other.remove(name)
    return other


@pytest.fixture
def path(model, tmp_path):
    return model.pack("bees").save(tmp_path / "bees.pack")


def _edit(path, document=None, tensors=None):
    state = load_file(path)
    with safe_open(path, "pt") as file:
        said = json.loads(file.metadata()[KEY])
    said.update(document or {})
    if tensors:
        tensors(state)
    save_file(state, path, {KEY: json.dumps(said)})
    return path


def test_safetensors_alone_reads_it(model, path):
    with safe_open(path, "pt") as file:
        document = json.loads(file.metadata()[KEY])
        names = set(file.keys())
    assert document["format"] == 1
    assert document["domain"] == "bees"
    assert document["tasks"][0]["classes"] == ["x", "y", "z"]
    assert document["pixels"]["size"] == [32, 32]
    assert document["trunk"]["arch"] == "resnet20"
    assert document["sha256"] == model.trunk.fingerprint()
    assert document["banks"] == ["AdapterBank", "DomainNorm"]
    assert "slots/stem.norm/weight" in names
    assert all(name.startswith(("slots/", "heads/")) for name in names)


def test_it_says_nothing_of_this_machine(path):
    text = path.read_bytes().decode("latin-1")
    for secret in (str(path.parent), "/home/", "/root"):
        assert secret not in text


def test_a_pack_is_a_snapshot(model):
    pack = model.pack("cats")
    before = {k: v.clone() for k, v in pack.tensors.items()}
    twin = copy.deepcopy(model)
    again = twin.pack("cats")
    for parameter in twin.parameters_of("cats").values():
        parameter.data.zero_()
    assert all(torch.equal(v, before[k]) for k, v in again.tensors.items())


def _nan(state):
    state["slots/stem.norm/weight"][0] = float("nan")


def _shape(state):
    state["slots/stem.norm/weight"] = torch.zeros(99)


def _whole(state):
    state["slots/stem.norm/weight"] = state["slots/stem.norm/weight"].to(torch.int64)


def _less(state):
    del state["slots/stem.norm/weight"]


def _more(state):
    state["slots/../../etc/weight"] = torch.zeros(1)


def _negative(state):
    state["slots/stem.norm/running_var"][0] = -1.0


DOCUMENTS = {
    "format 2": ({"format": 2}, "format 2"),
    "format 0": ({"format": 0}, "format 0"),
    "no format": ({"format": "new"}, "no onetrunk document"),
    "a bad name": ({"domain": "../bees"}, "name of a domain"),
    "a name that is no text": ({"domain": 3}, "name: expected text"),
    "no number": ({"scores": {"error": float("nan")}}, "no onetrunk document"),
    "bad tasks": ({"tasks": [{"name": "a"}]}, "kind: it is missing"),
    "tasks of another kind": ({"tasks": 7}, "does not describe"),
    "an unknown kind": (
        {
            "tasks": [
                {
                    "name": "a",
                    "kind": "steal",
                    "classes": [],
                    "outputs": 1,
                    "unit": "",
                    "column": None,
                }
            ]
        },
        "unknown kind",
    ),
    "a class that is no text": (
        {"tasks": [{"name": "classify", "kind": "classify", "classes": [["x"], "y", "z"]}]},
        "classes",
    ),
    "too many outputs": (
        {
            "tasks": [
                {
                    "name": "a",
                    "kind": "regress",
                    "classes": [],
                    "outputs": 10**12,
                    "column": None,
                    "unit": "",
                }
            ]
        },
        "outputs",
    ),
    "pixels too large to try": (
        {
            "pixels": {
                "size": [16384, 16384],
                "fit": "crop",
                "margin": 0,
                "fill": 0,
                "mean": [0, 0, 0],
                "std": [1, 1, 1],
            },
            "sha256": "0",
        },
        "other weights",
    ),
    "no tasks": ({"tasks": []}, "no task"),
    "bad pixels": ({"pixels": {"size": "big"}}, "whole pack"),
    "huge pixels": ({"pixels": {"size": [10**9, 10**9]}}, "16384"),
    "another trunk": ({"trunk": {"arch": "resnet38"}}, "another trunk"),
    "no trunk": ({"trunk": None}, "name its trunk"),
    "other weights": ({"sha256": "0" * 64}, "other weights"),
    "a rank that is no number": ({"rank": "4"}, "rank"),
    "a rank beyond bounds": ({"rank": 10**9}, "rank"),
    "another rank": ({"rank": 2}, "is to be|lacks"),
    "unknown adapters": ({"adapters": "os:system"}, "adapters"),
}
TENSORS = {
    "NaN": (_nan, "finite"),
    "a shape": (_shape, "is to be"),
    "a type": (_whole, "is to be"),
    "less": (_less, "lacks"),
    "more": (_more, "nothing here takes"),
    "a negative variance": (_negative, "variance"),
}


def _refused(fresh, path, says):
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    with pytest.raises(BadInput, match=says) as caught:
        fresh.load_pack(path)
    assert "\n" not in str(caught.value)
    after = fresh.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert not fresh.domains
    assert fresh.trunk.switch.names == ()


@pytest.mark.parametrize("case", DOCUMENTS)
def test_hostile_documents(fresh, path, case):
    document, says = DOCUMENTS[case]
    _refused(fresh, _edit(path, document), says)


@pytest.mark.parametrize("case", TENSORS)
def test_hostile_tensors(fresh, path, case):
    change, says = TENSORS[case]
    _refused(fresh, _edit(path, tensors=change), says)


def _huge_header(data):
    return struct.pack("<Q", HEADER + 1) + data[8:]


def _deep(_):
    header = b'{"__metadata__":' + b"[" * 50_000
    return struct.pack("<Q", len(header)) + header


BYTES = {
    "empty": lambda _: b"",
    "four bytes": lambda data: data[:4],
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte long": lambda data: data + b"x",
    "a huge header": _huge_header,
    "a deep header": _deep,
    "a pickle": lambda data: b"\x80\x04\x95" + data[:100],
    "text": lambda _: b"onetrunk" * 100,
}


@pytest.mark.parametrize("case", BYTES)
def test_broken_files(fresh, path, case):
    path.write_bytes(BYTES[case](path.read_bytes()))
    _refused(fresh, path, "whole pack")


def test_no_such_file(fresh, tmp_path):
    _refused(fresh, tmp_path / "none.pack", "cannot read the pack")


def test_the_trunk_is_named_before_its_hash(path):
    other = Universal(Trunk("resnet38"))
    with pytest.raises(BadInput, match="fits another trunk: arch is to be 'resnet38'"):
        other.load_pack(path)


def test_a_domain_is_not_overwritten(model, path):
    with pytest.raises(BadInput, match="there already"):
        model.load_pack(path)


def test_an_interrupted_save_leaves_the_old_pack(model, path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        model.pack("cats").save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_dense_tasks_and_full_sharing_survive(tmp_path):
    tasks = [Task("classify", "classify", ("x", "y")), Task("parts", "segment", ("p", "q", "r"))]
    turned = [Task("classify", "classify", ("y", "x")), Task("depth", "depth")]
    model = Universal(
        Trunk("resnet20", sharing="full"),
        [Domain("a", None, tasks, size=32), Domain("b", None, turned, size=33)],
    ).eval()
    path = model.pack("b").save(tmp_path / "b.pack")
    x = images(2, 33)
    with torch.no_grad():
        before = model(x, "b")
        model.remove("b")
        assert model.load_pack(path) == "b"
        after = model(x, "b")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert after["depth"].shape == (2, 1, 33, 33)


def test_shared_heads_must_agree(tmp_path):
    model = Universal(Trunk("resnet20", sharing="full"), [domain("a"), domain("b")]).eval()
    path = model.pack("b").save(tmp_path / "b.pack")
    model.remove("b")
    for parameter in model.shared_parameters().values():
        if parameter.ndim == 2:
            parameter.data += 1
    with pytest.raises(BadInput, match="head is not the one"):
        model.load_pack(path)
    assert list(model.domains) == ["a"]


def test_a_rank_travels(fresh, tmp_path):
    model = copy.deepcopy(fresh)
    model.add_domain(domain("dogs"), adapters="parallel", rank=2)
    path = model.pack("dogs").save(tmp_path / "dogs.pack")
    other = copy.deepcopy(fresh)
    other.load_pack(path)
    assert other.domains["dogs"].rank == 2
    x = images(2, 32)
    with torch.no_grad():
        ours, theirs = (m.eval()(x, "dogs")["classify"] for m in (model, other))
    assert torch.equal(ours, theirs)


def test_provenance_and_scores_travel(model, tmp_path):
    card = model.domains["ants"].with_record({"seed": 3}, {"error": 4.5})
    model.domains["ants"] = card
    opened = Pack.open(model.pack("ants").save(tmp_path / "ants.pack"))
    assert opened.card == card
