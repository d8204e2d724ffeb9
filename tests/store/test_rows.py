"""Rows in a file: written a few at a time, gone on with after a kill, and nothing trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from onetrunk.errors import BadInput
from onetrunk.store.rows import RowsWriter, read_rows

FORMS = {"half": ("F16", (3, 2)), "single": ("F32", (5,)), "odd": ("F16", (1,))}


def arrays(count: int = 10) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(0)
    kinds = {"F16": np.float16, "F32": np.float32}
    return {n: chance.normal(size=(count, *s)).astype(kinds[k]) for n, (k, s) in FORMS.items()}


def some(all_: dict[str, np.ndarray], first: int, end: int) -> dict[str, np.ndarray]:
    return {name: array[first:end] for name, array in all_.items()}


def test_what_is_written_is_read_here_and_by_safetensors(tmp_path: Path) -> None:
    whole, path = arrays(), tmp_path / "deep" / "rows.safetensors"
    with RowsWriter(path, FORMS, 10, "hello") as file:
        for first, end in ((0, 4), (4, 5), (5, 10)):
            file.write(some(whole, first, end))
        assert not path.exists()
        file.finish()
    assert [p.name for p in path.parent.iterdir()] == ["rows.safetensors"]
    assert path.stat().st_size == file.bytes
    about, found = read_rows(path)
    assert about == "hello"
    for other in (found, load_file(path)):
        assert other.keys() == whole.keys()
        for name, array in whole.items():
            np.testing.assert_array_equal(other[name], array)
            assert other[name].dtype == array.dtype


def test_it_goes_on_after_what_was_kept(tmp_path: Path) -> None:
    whole, path = arrays(), tmp_path / "rows.safetensors"
    with RowsWriter(path, FORMS, 10, "a") as file:
        file.write(some(whole, 0, 4))
        file.keep()
        file.write(some(arrays(), 4, 6))  # of these nobody knows
    again = RowsWriter(path, FORMS, 10, "a")
    assert again.done == 4
    with again:
        again.write(some(whole, 4, 10))
        again.finish()
    np.testing.assert_array_equal(read_rows(path)[1]["half"], whole["half"])
    with RowsWriter(path.with_name("b"), FORMS, 10, "a") as file:
        file.write(some(whole, 0, 4))
        file.keep()
    assert RowsWriter(path.with_name("b"), FORMS, 10, "other").done == 0
    assert RowsWriter(path.with_name("b"), FORMS, 11, "a").done == 0


def test_rows_of_another_form_are_refused(tmp_path: Path) -> None:
    file = RowsWriter(tmp_path / "rows", {"x": ("F16", (3,))}, 4, "")
    with file, pytest.raises(BadInput, match=r"x: expected rows of \(3,\); got: \(4,\)"):
        file.write({"x": np.zeros((2, 4))})


def test_a_file_of_anything_else_is_refused(tmp_path: Path) -> None:
    good, path = tmp_path / "good", tmp_path / "bad"
    with RowsWriter(good, FORMS, 10, "a") as file:
        file.write(arrays())
        file.finish()
    data = good.read_bytes()
    made = {
        "short": data[:-1],
        "empty": b"",
        "no json": b"\x08" + b"\0" * 7 + b"{[}]    ",
        "a long header": b"\xff" * 16,
        "another shape": data.replace(b"[10, 5]", b"[10, 9]"),
        "far away": data.replace(b'"shape": [10, 5]', b'"shape": [-1, 5]'),
    }
    for what, content in made.items():
        path.write_bytes(content)
        with pytest.raises(BadInput, match="bad holds no rows that onetrunk wrote"):
            read_rows(path)
        assert content != data, what
    save_file({"x": np.zeros(3, np.float32)}, path)
    with pytest.raises(BadInput, match="holds no rows"):
        read_rows(path)
    with pytest.raises(BadInput, match="cannot read nothing"):
        read_rows(tmp_path / "nothing")
