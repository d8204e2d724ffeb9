"""Tensors in a file: what safetensors' own reader reads is what lay in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from onetrunk.errors import BadInput
from onetrunk.store.tensors import TYPES, read_tensors, write_tensors


def back(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    path = tmp_path / "t.safetensors"
    with path.open("wb") as file:
        write_tensors(file, tensors)
    theirs = load_file(path)
    ours = read_tensors(path)
    path.unlink()
    assert ours.keys() == theirs.keys() == tensors.keys()
    assert all(same(ours[name], theirs[name]) for name in ours)
    return ours


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """To the bit, NaN and signed zeros too."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bits(a) == bits(b)


def bits(a: torch.Tensor) -> bytes:
    flat = a.resolve_conj().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)], ids=str)
def test_every_type_and_shape_comes_back_to_the_bit(
    tmp_path: Path, kind: torch.dtype, shape: tuple[int, ...]
) -> None:
    generator = np.random.default_rng(7)
    count = int(np.prod(shape)) * torch.empty(0, dtype=kind).element_size()
    raw = generator.integers(0, 2 if kind == torch.bool else 256, count, dtype=np.uint8)
    tensor = torch.empty(shape, dtype=kind)
    if count:
        tensor = torch.from_numpy(raw).view(kind).reshape(shape)
    assert same(back(tmp_path, {"x": tensor})["x"], tensor)


def test_views_and_shared_memory_are_stored_by_value(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "base": base,
        "again": base,
        "transposed": base.permute(2, 0, 1),
        "row": base[1, 2],
        "strided": base[:, ::2],
        "expanded": base[0, 0].expand(5, 4),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
        "negative": torch.randn(3, dtype=torch.complex64).conj().imag,
    }
    loaded = back(tmp_path, tensors)
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor.detach().clone()), name
        assert loaded[name].is_contiguous()
    loaded["base"].add_(1)
    assert torch.equal(loaded["again"], base), "two names came back as one memory"


def test_narrow_types_before_wide_ones_and_odd_names(tmp_path: Path) -> None:
    tensors = {
        "a/b.c é \"'": torch.ones(3, dtype=torch.uint8),
        "a": torch.ones(2, dtype=torch.float64),
        "": torch.ones(1, dtype=torch.bool),
    }
    loaded = back(tmp_path, tensors)
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert back(tmp_path, {}) == {}


def test_what_cannot_be_stored_is_named(tmp_path: Path) -> None:
    odd = {"w": torch.eye(2).to_sparse(), "z": torch.ones(1, dtype=torch.complex128)}
    for name, tensor in odd.items():
        with (
            pytest.raises(BadInput, match=f"cannot store the tensor {name}"),
            (tmp_path / "x").open("wb") as file,
        ):
            write_tensors(file, {name: tensor})


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    with path.open("wb") as file:
        write_tensors(file, {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"t\.safetensors is damaged"):
        read_tensors(path)
