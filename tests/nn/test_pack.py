"""Packs: their content, and refusals, which never change the model."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.pack import Pack
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.store.tensors import KEY, MAX_HEADER
from onetrunk.testing.models import make_domain, make_images, make_model
from tests.helpers.errors import raises

Change = Callable[[dict[str, Tensor]], None]  # changes the tensors of a pack


@pytest.fixture(scope="module")
def model() -> Universal:
    return make_model(lambda: Trunk("resnet20", adapters="parallel"), 32)


@pytest.fixture(scope="module")
def fresh(model: Universal) -> Universal:
    other = copy.deepcopy(model)
    for name in list(other.domains):
        other.remove(name)
    return other


@pytest.fixture
def path(model: Universal, tmp_path: Path) -> Path:
    return model.pack("bees").save(tmp_path / "bees.pack")


def _edit(path: Path, document: dict[str, Any] | None = None, change: Change | None = None) -> Path:
    state = load_file(path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[KEY])
    header.update(document or {})
    if change:
        change(state)
    save_file(state, path, {KEY: json.dumps(header)})
    return path


def test_content_read_by_safetensors(model: Universal, path: Path) -> None:
    with safe_open(path, "pt") as file:
        document = json.loads(file.metadata()[KEY])
        names = set(file.keys())
    assert document["format"] == 2
    assert document["domain"] == "bees"
    assert document["tasks"][0]["classes"] == ["x", "y", "z"]
    assert document["pixels"]["size"] == [32, 32]
    assert document["trunk"]["arch"] == "resnet20"
    assert document["sha256"] == model.trunk.fingerprint()
    assert document["banks"] == ["AdapterBank", "DomainNorm"]
    assert "slots/stem.norm/weight" in names
    assert all(name.startswith(("slots/", "heads/")) for name in names)


def test_a_pack_holds_no_path_of_this_machine(path: Path) -> None:
    text = path.read_bytes().decode("latin-1")
    for secret in (str(path.parent), "/home/", "/root"):
        assert secret not in text


def test_a_pack_is_a_snapshot(model: Universal) -> None:
    pack = model.pack("cats")
    before = {k: v.clone() for k, v in pack.tensors.items()}
    twin = copy.deepcopy(model)
    again = twin.pack("cats")
    for parameter in twin.parameters_of("cats").values():
        parameter.data.zero_()
    assert all(torch.equal(v, before[k]) for k, v in again.tensors.items())


def _nan(state: dict[str, Tensor]) -> None:
    state["slots/stem.norm/weight"][0] = float("nan")


def _shape(state: dict[str, Tensor]) -> None:
    state["slots/stem.norm/weight"] = torch.zeros(99)


def _integer(state: dict[str, Tensor]) -> None:
    state["slots/stem.norm/weight"] = state["slots/stem.norm/weight"].to(torch.int64)


def _missing(state: dict[str, Tensor]) -> None:
    del state["slots/stem.norm/weight"]


def _unexpected(state: dict[str, Tensor]) -> None:
    state["slots/../../etc/weight"] = torch.zeros(1)


def _negative(state: dict[str, Tensor]) -> None:
    state["slots/stem.norm/running_var"][0] = -1.0


DOCUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "format 1": ({"format": 1}, ["bees.pack", "format 1"]),
    "format 0": ({"format": 0}, ["bees.pack", "format 0"]),
    "no format": ({"format": "new"}, ["bees.pack"]),
    "a bad name": ({"domain": "../bees"}, ["bees.pack", "domain"]),
    "a name that is no text": ({"domain": 3}, ["bees.pack", "domain"]),
    "no number": ({"scores": {"error": float("nan")}}, ["bees.pack"]),
    "bad tasks": ({"tasks": [{"name": "a"}]}, ["bees.pack", "tasks[0].kind"]),
    "tasks of another kind": ({"tasks": 7}, ["bees.pack", "domain"]),
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
        ["bees.pack", "steal"],
    ),
    "a class that is no text": (
        {"tasks": [{"name": "classify", "kind": "classify", "classes": [["x"], "y", "z"]}]},
        ["bees.pack", "tasks[0].classes"],
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
        ["bees.pack", "tasks[0].outputs"],
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
        ["bees", "weights"],
    ),
    "no tasks": ({"tasks": []}, ["bees.pack", "task"]),
    "bad pixels": ({"pixels": {"size": "big"}}, ["bees.pack"]),
    "huge pixels": ({"pixels": {"size": [10**9, 10**9]}}, ["bees.pack", "16384"]),
    "another trunk": ({"trunk": {"arch": "resnet38"}}, ["arch", "resnet20", "resnet38"]),
    "no trunk": ({"trunk": None}, ["bees.pack", "trunk"]),
    "other weights": ({"sha256": "0" * 64}, ["bees", "weights"]),
    "a rank that is no number": ({"rank": "4"}, ["bees.pack", "rank"]),
    "a rank beyond bounds": ({"rank": 10**9}, ["rank", "4096"]),
    "another rank": ({"rank": 2}, ["pack bees", "slots/"]),
    "a head": (
        {"heads": {"classify": {"object": "os:system", "arguments": {}}}},
        ["head", "os:system", "--trust os"],
    ),
    "a head by name alone": ({"heads": {"classify": "os:system"}}, ["bees.pack", "heads.classify"]),
    "a head with other keys": (
        {"heads": {"classify": {"object": "os:system", "code": "1"}}},
        ["bees.pack", "heads.classify", "code"],
    ),
    "a head without a module": (
        {"heads": {"classify": {"object": "system"}}},
        ["bees.pack", "heads.classify", "system"],
    ),
    "heads that are no table": ({"heads": 3}, ["bees.pack"]),
    "banks that are no list": ({"banks": 5}, ["bees.pack", "banks"]),
    "banks without names": ({"banks": [5]}, ["bees.pack", "banks"]),
    "unknown adapters": ({"adapters": "os:system"}, ["adapter", "os:system", "--trust os"]),
}
TENSORS: dict[str, tuple[Change, list[str]]] = {
    "NaN": (_nan, ["slots/stem.norm/weight", "NaN"]),
    "a shape": (_shape, ["slots/stem.norm/weight"]),
    "a type": (_integer, ["slots/stem.norm/weight"]),
    "less": (_missing, ["slots/stem.norm/weight"]),
    "more": (_unexpected, ["slots/../../etc/weight"]),
    "a negative variance": (_negative, ["slots/stem.norm/running_var"]),
}


def _refused(fresh: Universal, path: Path, facts: list[str]) -> None:
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    with raises(BadInput, *facts) as error:
        fresh.load_pack(path)
    assert "\n" not in str(error.value)
    after = fresh.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert not fresh.domains
    assert fresh.trunk.switch.names == ()


@pytest.mark.parametrize("case", DOCUMENTS)
def test_hostile_documents(fresh: Universal, path: Path, case: str) -> None:
    document, facts = DOCUMENTS[case]
    _refused(fresh, _edit(path, document), facts)


@pytest.mark.parametrize("case", TENSORS)
def test_hostile_tensors(fresh: Universal, path: Path, case: str) -> None:
    change, facts = TENSORS[case]
    _refused(fresh, _edit(path, change=change), facts)


def _huge_header(data: bytes) -> bytes:
    return struct.pack("<Q", MAX_HEADER + 1) + data[8:]


def _deep(_: bytes) -> bytes:
    header = b'{"__metadata__":' + b"[" * 50_000
    return struct.pack("<Q", len(header)) + header


BYTES: dict[str, Callable[[bytes], bytes]] = {
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
def test_broken_files(fresh: Universal, path: Path, case: str) -> None:
    path.write_bytes(BYTES[case](path.read_bytes()))
    _refused(fresh, path, ["bees.pack"])


def test_no_such_file(fresh: Universal, tmp_path: Path) -> None:
    _refused(fresh, tmp_path / "none.pack", ["none.pack"])


def test_another_trunk_is_named(path: Path) -> None:
    other = Universal(Trunk("resnet38"))
    with raises(BadInput, "pack bees", "arch", "resnet38", got="resnet20"):
        other.load_pack(path)


def test_a_domain_is_not_overwritten(model: Universal, path: Path) -> None:
    with raises(BadInput, got="bees", available=["ants", "bees", "cats"]):
        model.load_pack(path)


def _full_disk(*_: object) -> None:
    raise OSError("disk full")


def test_an_interrupted_save_leaves_the_old_pack(
    model: Universal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", _full_disk)
    with pytest.raises(OSError, match="disk full"):
        model.pack("cats").save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_dense_tasks_and_full_sharing(tmp_path: Path) -> None:
    tasks = [Task("classify", "classify", ("x", "y")), Task("parts", "segment", ("p", "q", "r"))]
    turned = [Task("classify", "classify", ("y", "x")), Task("depth", "depth")]
    model = Universal(
        Trunk("resnet20", sharing="full"),
        [Domain("a", None, tasks, size=32), Domain("b", None, turned, size=33)],
    ).eval()
    path = model.pack("b").save(tmp_path / "b.pack")
    x = make_images(2, 33)
    with torch.no_grad():
        before = model(x, "b")
        model.remove("b")
        assert model.load_pack(path) == "b"
        after = model(x, "b")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert after["depth"].shape == (2, 1, 33, 33)


def test_shared_heads_must_agree(tmp_path: Path) -> None:
    model = Universal(
        Trunk("resnet20", sharing="full"), [make_domain("a"), make_domain("b")]
    ).eval()
    path = model.pack("b").save(tmp_path / "b.pack")
    model.remove("b")
    for parameter in model.shared_parameters().values():
        if parameter.ndim == 2:
            parameter.data += 1
    with raises(BadInput, "pack b", got="of.task_classify.weight"):
        model.load_pack(path)
    assert list(model.domains) == ["a"]


def test_a_pack_keeps_the_rank(fresh: Universal, tmp_path: Path) -> None:
    model = copy.deepcopy(fresh)
    model.add_domain(make_domain("dogs"), adapters="parallel", rank=2)
    path = model.pack("dogs").save(tmp_path / "dogs.pack")
    other = copy.deepcopy(fresh)
    other.load_pack(path)
    assert other.domains["dogs"].rank == 2
    x = make_images(2, 32)
    with torch.no_grad():
        before, after = (m.eval()(x, "dogs")["classify"] for m in (model, other))
    assert torch.equal(before, after)


def test_a_pack_keeps_provenance_and_scores(model: Universal, tmp_path: Path) -> None:
    card = model.domains["ants"].with_record({"seed": 3}, {"error": 4.5})
    model.domains["ants"] = card
    opened = Pack.open(model.pack("ants").save(tmp_path / "ants.pack"))
    assert opened.card == card
