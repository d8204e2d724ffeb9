"""Datasets on disk: features as tasks, encoded images, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from onetrunk.data.pixels import BadImage, Pixels
from onetrunk.errors import BadInput, Failed, Missing
from tests.helpers.errors import raises

datasets = pytest.importorskip("datasets")
huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def save(tmp_path: Path, encoded: Any) -> Any:
    """Save rows of these columns with these features."""

    def write(columns: dict[str, list[Any]], features: dict[str, Any], name: str = "d") -> None:
        n = len(next(iter(columns.values())))
        columns = {"photo": [{"bytes": encoded(i), "path": None} for i in range(n)], **columns}
        features = {"photo": datasets.Image(), **features}
        made = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        made.save_to_disk(str(tmp_path / name))

    return write


def test_splits_and_classes(built: Any, opened: Any) -> None:
    source = opened(built("hf"))
    items = list(source.items())
    assert source.tasks[0].classes == ("hat", "shoe")
    assert [i.key for i in items] == [f"train/{i}" for i in range(4)] + [
        f"validation/{i}" for i in range(2)
    ]
    assert [i.split for i in items] == ["train"] * 4 + ["val"] * 2
    assert items[1].labels == {"classify": "shoe"}
    assert isinstance(source.image("train/0"), bytes)


def test_kinds_of_columns(save: Any, opened: Any) -> None:
    names = datasets.ClassLabel(names=["a", "b"])
    save(
        {
            "what": [0, -1, 1],
            "tags": [[0, 1], [], None],
            "text": ["x", "", "y"],
            "price": [1.5, None, 2.0],
            "item": ["i", "i", "j"],
        },
        {
            "what": names,
            "tags": datasets.Sequence(names),
            "text": datasets.Value("string"),
            "price": datasets.Value("float32"),
            "item": datasets.Value("string"),
        },
    )
    source = opened("hf:d")
    assert [(t.name, t.kind, t.column) for t in source.tasks] == [("classify", "classify", "what")]
    tasks = {
        "what": "classify",
        "tags": "multilabel",
        "text": {"kind": "embed", "column": "text"},
        "price": "regress",
    }
    items = list(opened("hf:d", tasks, group="item").items())
    assert [dict(i.labels) for i in items] == [
        {"what": "a", "tags": ("a", "b"), "text": "x", "price": 1.5},
        {"what": None, "tags": (), "text": None, "price": None},
        {"what": "b", "tags": None, "text": "y", "price": 2.0},
    ]
    assert [i.group for i in items] == ["i", "i", "j"]
    assert items[0].split is None


def test_two_columns_of_classes_are_two_tasks(save: Any, opened: Any) -> None:
    names = datasets.ClassLabel(names=["a", "b"])
    save({"Fine Label": [0, 1], "coarse": [1, 0]}, {"Fine Label": names, "coarse": names})
    assert [t.name for t in opened("hf:d").tasks] == ["fine-label", "coarse"]


def test_a_row_without_an_image_is_bad(tmp_path: Path, opened: Any) -> None:
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("string"))
    rows = {"image": [None, {"bytes": b"text", "path": None}], "label": ["a", "b"]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "d"))
    source = opened("hf:d")
    for item in source.items():
        with pytest.raises(BadImage):
            Pixels((4, 4)).read(source.image(item.where))


def test_problems_are_named(save: Any, opened: Any, tmp_path: Path) -> None:
    save({"colour": ["a"]}, {"colour": datasets.Value("string")})
    with raises(BadInput, "hf:d", available=["photo (Image)", "colour (Value)"]):
        opened("hf:d")
    with raises(BadInput, "task x", got="color"):
        opened("hf:d", {"x": {"kind": "classify", "column": "color"}})
    with raises(BadInput, got="colour", try_="image ="):
        opened("hf:d", image="colour")
    (tmp_path / "other").mkdir()
    with raises(BadInput, "hf:other", try_="save_to_disk"):
        opened("hf:other")
    with raises(BadInput, "hf:a/b/c/d/e", try_="hf:OWNER/NAME"):
        opened("hf:a/b/c/d/e")


def test_unknown_splits_are_noted(save: Any, opened: Any, tmp_path: Path) -> None:
    save({"label": ["a"]}, {"label": datasets.Value("string")})
    one = datasets.load_from_disk(str(tmp_path / "d"))
    datasets.DatasetDict({"train": one, "extra": one}).save_to_disk(str(tmp_path / "two"))
    source = opened("hf:two")
    assert source.notes == ["splits not used: extra"]
    datasets.DatasetDict({"more": one, "extra": one}).save_to_disk(str(tmp_path / "none"))
    with raises(BadInput, got="more, extra"):
        opened("hf:none")


def test_a_failure_of_the_library_is_one_line(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[tuple[str, str | None]] = []

    def fail(name: str, config: str | None) -> None:
        requests.append((name, config))
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset", fail)
    for name in ("mnist", "owner/name", "owner/name/config"):
        with raises(Failed, f"hf:{name}", got="ConnectionError: no network"):
            opened(f"hf:{name}")
    assert requests == [("mnist", None), ("owner/name", None), ("owner/name", "config")]


def test_without_a_network_there_is_one_request_then_the_librarys_cache(
    opened: Any, monkeypatch: pytest.MonkeyPatch, save: Any, tmp_path: Path
) -> None:
    requests: list[str] = []
    save({"label": ["a"]}, {"label": datasets.Value("string")})
    kept = datasets.load_from_disk(str(tmp_path / "d"))

    def unreachable(_: object, name: str, timeout: float) -> None:
        assert timeout <= 5
        requests.append(name)
        raise OSError("Name or service not known")

    def load(name: str, _: str | None) -> Any:
        assert datasets.config.HF_HUB_OFFLINE  # the library makes no request of its own
        if name == "cached":
            return kept
        raise ConnectionError("offline")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(datasets, "load_dataset", load)
    with raises(Failed, "hf:beans", got="Name or service not known", try_="hf:FOLDER"):
        opened("hf:beans")
    assert len(list(opened("hf:cached").items())) == 1
    assert requests == ["beans", "cached"]
    assert not datasets.config.HF_HUB_OFFLINE


def test_without_the_package(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with raises(Missing, try_="onetrunk[hf]"):
        opened("hf:d")
