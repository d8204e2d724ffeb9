"""Safetensors files: written tensors and rows are read back as they were, and damage is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file

from onetrunk.errors import BadInput
from onetrunk.store.tensors import (
    DTYPES,
    KEY,
    MAX_HEADER,
    RowsWriter,
    read_header,
    read_rows,
    read_tensors,
    write_tensors,
)
from tests.helpers.errors import raises

ROWS = {"half": ("F16", (3, 2)), "single": ("F32", (5,)), "odd": ("F16", (1,))}


def read_back(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
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
    """Whether two tensors are equal to the bit, including NaN and signed zeros."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bits(a) == bits(b)


def bits(a: torch.Tensor) -> bytes:
    flat = a.resolve_conj().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


@pytest.mark.parametrize("kind", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)], ids=str)
def test_every_type_and_shape_is_read_back_to_the_bit(
    tmp_path: Path, kind: torch.dtype, shape: tuple[int, ...]
) -> None:
    generator = np.random.default_rng(7)
    count = int(np.prod(shape)) * torch.empty(0, dtype=kind).element_size()
    raw = generator.integers(0, 2 if kind == torch.bool else 256, count, dtype=np.uint8)
    tensor = torch.empty(shape, dtype=kind)
    if count:
        tensor = torch.from_numpy(raw).view(kind).reshape(shape)
    assert same(read_back(tmp_path, {"x": tensor})["x"], tensor)


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
    loaded = read_back(tmp_path, tensors)
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor.detach().clone()), name
        assert loaded[name].is_contiguous()
    loaded["base"].add_(1)
    assert torch.equal(loaded["again"], base), "two names share memory"


def test_mixed_widths_and_odd_names(tmp_path: Path) -> None:
    tensors = {
        "a/b.c é \"'": torch.ones(3, dtype=torch.uint8),
        "a": torch.ones(2, dtype=torch.float64),
        "": torch.ones(1, dtype=torch.bool),
    }
    loaded = read_back(tmp_path, tensors)
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert read_back(tmp_path, {}) == {}


def test_a_tensor_that_cannot_be_stored_is_named(tmp_path: Path) -> None:
    odd = {"w": torch.eye(2).to_sparse(), "z": torch.ones(1, dtype=torch.complex128)}
    for name, tensor in odd.items():
        with (
            raises(BadInput, f"tensor {name}", available=["torch.float32"]),
            (tmp_path / "x").open("wb") as file,
        ):
            write_tensors(file, {name: tensor})


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    with path.open("wb") as file:
        write_tensors(file, {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-1])
    with raises(BadInput, "t.safetensors"):
        read_tensors(path)


def write(path: Path, metadata: dict[str, str]) -> Path:
    with path.open("wb") as file:
        write_tensors(file, {"a": torch.ones(3)}, metadata)
    return path


def test_the_document_of_a_header_is_read_back(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {KEY: '{"format": 2, "name": "digits"}', "other": "text"})
    header = read_header(path)
    assert header.metadata["other"] == "text"
    assert list(header.tensors) == ["a"]
    assert header.size + 12 == path.stat().st_size
    assert header.document(path, "pack", 2) == {"format": 2, "name": "digits"}
    with path.open("rb") as file:
        assert read_header(path, file) == header
    with raises(BadInput, "x", "pack", "1", got="format 2"):
        header.document(path, "pack", 1)


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", "{}", '{"format": "1"}', '{"format": NaN}', "[" * 100_000]
)
def test_a_document_of_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "x", {KEY: text})
    with raises(BadInput, "x", "pack"):
        read_header(path).document(path, "pack", 1)
    with raises(BadInput, "y", "pack"):
        read_header(write(tmp_path / "y", {})).document(tmp_path / "y", "pack", 1)


@pytest.mark.parametrize(
    "data",
    [b"", b"1234", b"\xff" * 16, b"\x02" + b"\0" * 7 + b"[]", b"\x03" + b"\0" * 7 + b"{\xff}"],
)
def test_a_file_without_a_header_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with raises(BadInput, "x"):
        read_header(tmp_path / "x")


def test_a_header_that_would_not_be_read_is_not_written(tmp_path: Path) -> None:
    with raises(BadInput, f"{MAX_HEADER:,}"):
        write(tmp_path / "x", {KEY: "x" * MAX_HEADER})


def arrays(count: int = 10) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(0)
    kinds = {"F16": np.float16, "F32": np.float32}
    return {n: chance.normal(size=(count, *s)).astype(kinds[k]) for n, (k, s) in ROWS.items()}


def cut(all_: dict[str, np.ndarray], first: int, end: int) -> dict[str, np.ndarray]:
    return {name: array[first:end] for name, array in all_.items()}


def test_rows_are_read_back_here_and_by_safetensors(tmp_path: Path) -> None:
    all_rows, path = arrays(), tmp_path / "deep" / "rows.safetensors"
    with RowsWriter(path, ROWS, 10, "hello") as file:
        for first, end in ((0, 4), (4, 5), (5, 10)):
            file.write(cut(all_rows, first, end))
        assert not path.exists()
        file.finish()
    assert [p.name for p in path.parent.iterdir()] == ["rows.safetensors"]
    assert path.stat().st_size == file.bytes
    about, found = read_rows(path)
    assert about == "hello"
    for other in (found, load_numpy(path)):
        assert other.keys() == all_rows.keys()
        for name, array in all_rows.items():
            np.testing.assert_array_equal(other[name], array)
            assert other[name].dtype == array.dtype


def test_a_later_writer_continues_after_the_rows_that_were_kept(tmp_path: Path) -> None:
    all_rows, path = arrays(), tmp_path / "rows.safetensors"
    with RowsWriter(path, ROWS, 10, "a") as file:
        file.write(cut(all_rows, 0, 4))
        file.keep()
        file.write(cut(arrays(), 4, 6))  # not kept
    again = RowsWriter(path, ROWS, 10, "a")
    assert again.done == 4
    with again:
        again.write(cut(all_rows, 4, 10))
        again.finish()
    np.testing.assert_array_equal(read_rows(path)[1]["half"], all_rows["half"])
    with RowsWriter(path.with_name("b"), ROWS, 10, "a") as file:
        file.write(cut(all_rows, 0, 4))
        file.keep()
    assert RowsWriter(path.with_name("b"), ROWS, 10, "other").done == 0
    assert RowsWriter(path.with_name("b"), ROWS, 11, "a").done == 0


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    file = RowsWriter(tmp_path / "rows", {"x": ("F16", (3,))}, 4, "")
    with file, raises(BadInput, "x", "(3,)", got=(4,)):
        file.write({"x": np.zeros((2, 4))})


def test_other_and_damaged_files_are_not_read_as_rows(tmp_path: Path) -> None:
    good, path = tmp_path / "good", tmp_path / "bad"
    with RowsWriter(good, ROWS, 10, "a") as file:
        file.write(arrays())
        file.finish()
    data = good.read_bytes()
    damages = {
        "short": data[:-1],
        "empty": b"",
        "no json": b"\x08" + b"\0" * 7 + b"{[}]    ",
        "a long header": b"\xff" * 16,
        "another shape": data.replace(b"[10, 5]", b"[10, 9]"),
        "far away": data.replace(b'"shape": [10, 5]', b'"shape": [-1, 5]'),
    }
    for what, content in damages.items():
        path.write_bytes(content)
        with raises(BadInput, "bad"):
            read_rows(path)
        assert content != data, what
    save_numpy({"x": np.zeros(3, np.float32)}, path)
    with raises(BadInput, "bad"):
        read_rows(path)
    with raises(BadInput, "missing"):
        read_rows(tmp_path / "missing")
