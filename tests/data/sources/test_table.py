"""Tables: formats, kinds of labels, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onetrunk.errors import BadInput, Missing
from tests.helpers.errors import raises


@pytest.fixture
def shop(tmp_path: Path, photo: Any) -> Path:
    """Four pictures to write tables about."""
    for name in "abcd":
        photo(tmp_path / "img" / f"{name}.png", seed=ord(name))
    return tmp_path


def lines(*rows: str) -> str:
    return "\n".join(rows) + "\n"


TASKS = {
    "kind": {"kind": "classify", "column": "category"},
    "tags": {"kind": "multilabel", "column": "tags"},
    "price": {"kind": "regress", "column": "price"},
    "size": {"kind": "regress", "column": "w, h"},
}
WANTED = [
    {"kind": "hat", "tags": ("red", "wool"), "price": 9.5, "size": (1.0, 2.0)},
    {"kind": "007", "tags": ("red",), "price": None, "size": None},
    {"kind": None, "tags": (), "price": 3.0, "size": (4.0, 5.0)},
    {"kind": "shoe", "tags": None, "price": -1.0, "size": (0.0, 0.0)},
]


def write(path: Path) -> None:
    """The same table in every format."""
    rows = [
        ("img/a.png", "hat", "red|wool", "9.5", "1", "2", "train", "g1"),
        ("img\\b.png", "007", "red", "", "", "", "valid", "g1"),
        ("./img/c.png", "", "[]", "3", "4", "5", "Test", ""),
        ("img/d.png", " shoe ", "", "-1", "0", "0", "train", "g2"),
    ]
    names = ("path", "category", "tags", "price", "w", "h", "split", "item")
    if path.suffix in (".csv", ".tsv"):
        mark = "\t" if path.suffix == ".tsv" else ","
        text = "\ufeff" + lines(*(mark.join(row) for row in (names, *rows)))
        path.write_text(text, encoding="utf-8", newline="")
        return
    objects: list[dict[str, Any]] = []
    for row in rows:
        made: dict[str, Any] = {k: v for k, v in zip(names, row, strict=True) if v}
        for name in ("price", "w", "h"):
            if name in made:
                made[name] = float(made[name])
        if "tags" in made:
            made["tags"] = [] if made["tags"] == "[]" else made["tags"].split("|")
        objects.append(made)
    if path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        columns = {name: [o.get(name) for o in objects] for name in names}
        pq.write_table(pa.table(columns), path)
    else:
        path.write_text(lines(*map(json.dumps, objects)))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_reads_the_same(ending: str, shop: Path, opened: Any) -> None:
    write(shop / f"t.{ending}")
    source = opened(f"table:t.{ending}", TASKS, group="item")
    items = list(source.items())
    assert [dict(i.labels) for i in items] == WANTED
    assert [i.key for i in items] == [f"img/{n}.png" for n in "abcd"]
    assert [i.split for i in items] == ["train", "val", "test", "train"]
    assert [i.group for i in items] == ["g1", "g1", None, "g2"]
    assert {t.name: t.outputs for t in source.tasks}["size"] == 2


def test_semicolons_of_spreadsheets(shop: Path, opened: Any) -> None:
    (shop / "t.csv").write_text(lines("path;label", "img/a.png;1,5 kg"))
    (item,) = opened("table:t.csv").items()
    assert item.labels == {"classify": "1,5 kg"}


def test_dense_targets_by_columns(shop: Path, opened: Any) -> None:
    Image.fromarray(np.ones((9, 7), np.uint8)).save(shop / "m.png")
    np.save(shop / "d.npy", np.full((9, 7), 2.0, np.float32))
    (shop / "t.csv").write_text(lines("path,mask,far", "img/a.png,m.png,d.npy", "img/b.png,,"))
    tasks = {
        "mask": {"kind": "segment", "classes": ["a", "b"]},
        "far": {"kind": "depth", "column": "far"},
    }
    source = opened("table:t.csv", tasks)
    first, second = source.items()
    assert source.target(first.where, "mask").max() == 1
    assert source.target(first.where, "far").max() == 2
    assert source.target(second.where, "mask") is None
    before = first.stamp
    (shop / "m.png").write_bytes((shop / "m.png").read_bytes() + b" ")
    assert next(iter(source.items())).stamp != before


def test_a_task_that_is_nearly_a_column_is_not_another_one(shop: Path, opened: Any) -> None:
    (shop / "t.csv").write_text(lines("path,label,price", "img/a.png,x,1", "img/b.png,y,2"))
    columns = ["path", "label", "price"]
    with raises(BadInput, got="labl", available=columns, try_="label"):
        opened("table:t.csv", {"labl": "classify"})
    with raises(BadInput, got="prices", available=columns, try_="price"):
        opened("table:t.csv", {"prices": "regress"})
    for name in ("classify", "species", "label"):
        first, _ = opened("table:t.csv", {name: "classify"}).items()
        assert first.labels == {name: "x"}


def test_one_image_in_two_rows(shop: Path, opened: Any) -> None:
    (shop / "t.csv").write_text(lines("path,label", "img/a.png,x", "img/b.png,y", "img/./a.png,x"))
    assert len(list(opened("table:t.csv").items())) == 2
    (shop / "t.csv").write_text(lines("path,label", "img/a.png,x", "img/b.png,y", "img/./a.png,z"))
    with raises(BadInput, "line 2 and line 4", "img/a.png"):
        list(opened("table:t.csv").items())


def test_missing_images_are_listed_and_noted(shop: Path, opened: Any) -> None:
    (shop / "t.csv").write_text(lines("path,label", "img/a.png,x", "img/no.png,y"))
    source = opened("table:t.csv")
    assert [i.stamp == "missing" for i in source.items()] == [False, True]
    assert "img/no.png" in source.notes[0]
    (shop / "t.csv").write_text(lines("path,label", "a.png,x"))
    with raises(BadInput, "1 images", got="a.png"):
        list(opened("table:t.csv").items())


@pytest.mark.parametrize("path", ["../x.png", "/etc/passwd", "img/../../x.png", "link/x.png"])
def test_paths_stay_inside(path: str, shop: Path, opened: Any, tmp_path_factory: Any) -> None:
    (shop / "link").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    (shop / "t.csv").write_text(lines("path,label", "img/a.png,x", f"{path},x"))
    with pytest.raises(BadInput) as caught:
        list(opened("table:t.csv").items())
    assert "line 3" in str(caught.value)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("text", "tasks", "options", "fact"),
    [
        ("path,colour\nimg/a.png,x\n", None, {}, "available: path, colour"),
        ("path,label\nimg/a.png,x\n", {"a": {"kind": "classify", "column": "lable"}}, {}, "label"),
        ("pth,label\nimg/a.png,x\n", None, {}, "no column for image"),
        ("path,label\nimg/a.png,x\n", None, {"image": "file"}, "no such column for image"),
        ("path,label\nimg/a.png,x\n", None, {"split": "part"}, "no such column for split"),
        ("path,label,split\nimg/a.png,x,tarin\n", None, {}, "line 2: unknown split"),
        ("path,label,split\nimg/a.png,x,\n", None, {}, "an empty cell"),
        ("path,label\nimg/a.png,x,y\n", None, {}, "line 2: expected 2 cells"),
        ("path,label\n,x\n", None, {}, "line 2: expected a path"),
        ("path,label,label\nimg/a.png,x,y\n", None, {}, "a different name for every column"),
        ("path,label\nimg/a.png,0.37\n", None, {}, 'kind = "regress"'),
        ("path,label\n", None, {}, "no rows"),
        ("", None, {}, "no column"),
        ("path,y\nimg/a.png,nan\n", {"y": "regress"}, {}, "column y: expected a finite number"),
        ("path,y\nimg/a.png,1e999\n", {"y": "regress"}, {}, "finite"),
        ("path,y\nimg/a.png,tall\n", {"y": "regress"}, {}, "tall"),
        (
            "path,x,y\nimg/a.png,1,\n",
            {"p": {"kind": "regress", "column": "x,y"}},
            {},
            "fill in all or none",
        ),
        ("path,m\nimg/a.png,m.png\n", {"m": "segment"}, {}, "task m: expected the classes"),
        ('path,label\nimg/a.png,"x\n', None, {}, "not CSV"),
    ],
)
def test_problems_are_named(
    text: str, tasks: Any, options: Any, fact: str, shop: Path, opened: Any
) -> None:
    (shop / "t.csv").write_text(text)
    with pytest.raises(BadInput) as caught:
        list(opened("table:t.csv", tasks, **options).items())
    assert fact in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(shop) not in str(caught.value)


def test_all_bad_rows_are_reported_together(shop: Path, opened: Any) -> None:
    (shop / "t.csv").write_text(
        lines("path,label,split", "img/a.png,x,train", "../b.png,x,train", "img/c.png,x,tarin")
    )
    with raises(BadInput, "line 3", "line 4", "table:t.csv", got="../b.png") as error:
        list(opened("table:t.csv").items())
    assert [each.got for each in error.value.errors] == ["../b.png", "tarin"]


def test_one_problem_of_many_rows_is_one_line(shop: Path, opened: Any) -> None:
    rows = [f"img/{'abcd'[i % 4]}.png,tall,tarin" for i in range(70)]
    (shop / "t.csv").write_text(lines("path,height,split", *rows, "img/a.png,1,"))
    with raises(BadInput, "70 rows", "line 2", got="tall") as error:
        list(opened("table:t.csv", {"height": "regress"}).items())
    assert [each.got for each in error.value.errors] == ["tall", "an empty cell"]
    (shop / "t.csv").write_text(lines("path,label,split", *rows))
    with raises(BadInput, "70 rows", "line 2", got="tarin", available=["train"]) as error:
        list(opened("table:t.csv").items())
    assert len(error.value.errors) == 1


def test_other_files_are_refused(shop: Path, opened: Any) -> None:
    (shop / "t.csv").write_bytes(b"path,label\nimg/a.png,caf\xe9\n")
    with raises(BadInput, "table:t.csv", "UTF-8"):
        list(opened("table:t.csv").items())
    (shop / "t.parquet").write_bytes(b"PAR1 nonsense")
    with raises(BadInput, "table:t.parquet", "Parquet"):
        opened("table:t.parquet")
    (shop / "t.jsonl").write_text('{"path": "img/a.png", "label": "x"}\n[1]\n')
    with raises(BadInput, "table:t.jsonl", "line 2", got="list"):
        opened("table:t.jsonl")
    (shop / "t.jsonl").write_text("[" * 100_000)
    with raises(BadInput, "table:t.jsonl", "JSON"):
        opened("table:t.jsonl")
    (shop / "t.xlsx").write_bytes(b"PK")
    with raises(BadInput, got=".xlsx", available=[".csv"]):
        opened("table:t.xlsx")
    with raises(BadInput, got="s.csv", available=["t.csv"]):
        opened("table:s.csv")


def test_fractions_are_not_class_names(shop: Path, opened: Any) -> None:
    rows = [{"path": "img/a.png", "label": 3}, {"path": "img/b.png", "label": True}]
    (shop / "t.jsonl").write_text(lines(*map(json.dumps, rows)))
    labels = [i.labels["classify"] for i in opened("table:t.jsonl").items()]
    assert labels == ["3", "true"]
    (shop / "t.jsonl").write_text('{"path": "img/a.png", "label": 3.0}\n')
    with raises(BadInput, "line 1", "class", got=3.0):
        list(opened("table:t.jsonl").items())


def test_without_pyarrow(shop: Path, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with raises(Missing, try_="onetrunk[parquet]"):
        opened("table:t.parquet")


def test_a_damaged_parquet_file(shop: Path, opened: Any) -> None:
    pytest.importorskip("pyarrow")
    write(shop / "t.parquet")
    data = bytearray((shop / "t.parquet").read_bytes())
    data[4:60] = b"\xff" * 56  # its pages; the footer stays intact
    (shop / "t.parquet").write_bytes(bytes(data))
    with raises(BadInput, "table:t.parquet", "Parquet"):
        list(opened("table:t.parquet", TASKS).items())
