"""Saving and loading a model; damaged folders are refused in one line."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

import onetrunk as ot
from onetrunk.nn.model_files import listed, relist
from tests.helpers.errors import raises

DOMAINS = (
    ot.Domain("signs", None, [ot.Task("classify", "classify", ("stop", "go"))], size=32),
    ot.Domain("faces", None, [ot.Task("age", "regress"), ot.Task("who", "embed")], size=32),
)


def make_model(**keys: Any) -> ot.Universal:
    torch.manual_seed(3)
    model = ot.Universal(ot.Trunk("resnet20", **keys), DOMAINS).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"norm": "shared"},
        {"norm": "domain-stats", "adapters": "parallel"},
        {"norm": "instance-domain", "adapters": "series", "adapter_layers": ("*conv2",)},
        {"sharing": "partial", "own_stages": ["stem"]},
        {"sharing": "full"},
    ],
)
def test_a_loaded_model_gives_the_same_outputs(tmp_path: Path, keys: dict[str, object]) -> None:
    model = make_model(**keys)
    ot.save(model, tmp_path)
    back = ot.load(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for domain in DOMAINS:
            expected, got = (m(images, domain=domain.name) for m in (model, back))
            assert all(torch.equal(expected[task], got[task]) for task in expected)
    assert not back.training
    assert list(back.domains) == list(model.domains)


def test_saving_again_removes_the_packs_of_removed_domains(tmp_path: Path) -> None:
    model = make_model()
    ot.save(model, tmp_path)
    model.remove("faces")
    ot.save(model, tmp_path)
    assert [path.name for path in (tmp_path / "model" / "packs").iterdir()] == ["signs.pack"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert list(ot.load(tmp_path).domains) == ["signs"]


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "shop/model").mkdir(parents=True)
    shop = str(tmp_path / "shop")
    for path in (tmp_path, tmp_path / "shops"):
        with raises(ot.BadInput, path, got=str(path)) as error:
            ot.load(path)
        assert error.value.available == (shop,)


HEADERS: dict[str, dict[str, object]] = {
    "format": {"format": 99},
    "a trunk for the machine": {"arch": "auto"},
    "domains that are no list": {"domains": 5},
    "a domain elsewhere": {"domains": ["../signs"]},
    "a domain that is no text": {"domains": [5]},
    "normalization": {"normalization": 5},
    "numbers of the normalization": {
        "normalization": {"mean": 5, "std": [1.0, 1.0, 1.0], "weights": "x"}
    },
    "licence": {"licence": 5},
}


@pytest.mark.parametrize("harm", ["truncated", "bit", "key", "pack", *HEADERS])
def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path, harm: str) -> None:
    ot.save(make_model(), tmp_path)
    path = tmp_path / "model" / "trunk.safetensors"
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    document = json.loads(header["__metadata__"]["onetrunk"])
    if harm == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif harm == "bit":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "pack":
        (tmp_path / "model" / "packs" / "faces.pack").unlink()
    else:
        document |= HEADERS.get(harm, {})
        if harm == "key":
            del document["sha256"]
        header["__metadata__"]["onetrunk"] = json.dumps(document)
        new = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + size :])
    with pytest.raises(ot.BadInput) as refused:
        ot.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_the_list_of_domains(tmp_path: Path) -> None:
    folder = ot.save(make_model(), tmp_path)
    trunk = folder / "trunk.safetensors"
    before = trunk.read_bytes(), trunk.stat().st_mtime_ns
    assert listed(folder) == ["signs", "faces"]
    larger = ot.load(tmp_path)
    larger.add_domain(ot.Domain("maps", None, [ot.Task("age", "regress")], size=32))
    larger.pack("maps").save(folder / "packs" / "maps.pack")
    assert list(ot.load(tmp_path).domains) == ["signs", "faces"]  # maps is not listed yet
    relist(folder, ["maps", "signs"])
    assert list(ot.load(tmp_path).domains) == ["maps", "signs"]
    assert (trunk.read_bytes(), trunk.stat().st_mtime_ns) == before
    ot.save(larger, tmp_path)  # writes the trunk again
    assert list(ot.load(tmp_path).domains) == ["signs", "faces", "maps"]


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "7", '{"format": 1}', '{"format": 1, "domains": ["signs", "signs"]}',
        '{"format": 9, "domains": ["signs"]}', '{"format": 1, "domains": ["../signs"]}',
        '{"format": 1, "domains": [3]}', '{"format": 1, "domains": ["nowhere"]}', "[" * 99999,
    ],
)  # fmt: skip
def test_a_hostile_list_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    folder = ot.save(make_model(), tmp_path)
    (folder / "domains.json").write_text(text)
    with pytest.raises(ot.BadInput) as refused:
        ot.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_pack_under_another_name_is_refused(tmp_path: Path) -> None:
    folder = ot.save(make_model(), tmp_path)
    (folder / "packs" / "faces.pack").rename(folder / "packs" / "signs.pack")
    relist(folder, ["signs"])
    with raises(ot.BadInput, "signs.pack", got="faces"):
        ot.load(tmp_path)
