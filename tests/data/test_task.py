"""Tasks are what the recipe says, or one line why not."""

from __future__ import annotations

from typing import Any

import pytest

from onetrunk.data.task import Kind, Task, check_name, read_tasks
from onetrunk.errors import BadInput
from tests.helpers.errors import raises


def test_the_short_form_names_a_task_after_its_kind() -> None:
    assert read_tasks(["classify", "depth"]) == (
        Task("classify", "classify"),
        Task("depth", "depth"),
    )


def test_the_long_form_has_kind_column_classes_and_unit() -> None:
    given: dict[str, str | dict[str, Any]] = {
        "category": {"kind": "classify", "column": "cat", "classes": ["b", "a"]},
        "price": {"kind": "regress", "outputs": 2, "unit": "€"},
        "depth": "depth",
    }
    assert read_tasks(given) == (
        Task("category", "classify", ("b", "a"), column="cat"),
        Task("price", "regress", outputs=2, unit="€"),
        Task("depth", "depth"),
    )


@pytest.mark.parametrize(
    ("given", "place", "got", "fact"),
    [
        (["clasify"], "", "clasify", "available: classify"),
        ({"a": "clasify"}, "a.kind", "clasify", "available: classify"),
        ({"a": {"column": "x"}}, "a", None, "available: classify"),
        ({"a": {"kind": "classify", "colum": "x"}}, "a.colum", "colum", "try: column"),
        ({"a": 3}, "a", 3, "available: classify"),
        ({"A b": "classify"}, "A b", "A b", "a-b"),
        (["classify", "classify"], "", "classify", "name"),
        ("classify", "", "classify", 'tasks = ["classify"]'),
        ([{"kind": "classify"}], "", {"kind": "classify"}, "available: classify"),
        ({"a": {"kind": "classify", "classes": ["x", "y", "x"]}}, "a", "x", "class"),
        ({"a": {"kind": "classify", "classes": ["1", 1]}}, "a", "1", "class"),
        ({"a": {"kind": "classify", "classes": "cat"}}, "a.classes", "cat", "list"),
        ({"a": {"kind": "regress", "outputs": 0}}, "a.outputs", 0, "at least 1"),
        ({"a": {"kind": "segment", "classes": [str(i) for i in range(256)]}}, "a", 256, "255"),
    ],
    ids=str,
)
def test_what_is_not_a_task_is_refused(given: Any, place: str, got: object, fact: str) -> None:
    with raises(BadInput, fact, place=place, got=got) as error:
        read_tasks(given)
    assert "\n" not in str(error.value)


def test_numbers_may_be_names_of_classes() -> None:
    (task,) = read_tasks({"digit": {"kind": "classify", "classes": [0, 1, 10]}})
    assert task.classes == ("0", "1", "10")


@pytest.mark.parametrize("name", ["", "a" * 65, "-a", "A", "a/b", "a b", "é", "a\n", "..", None])
def test_a_name_that_cannot_be_a_files_name_is_refused(name: Any) -> None:
    with pytest.raises(BadInput):
        check_name(name, "domain")


def test_the_width_is_what_the_head_puts_out() -> None:
    classes = ("a", "b", "c")
    widths: dict[Kind, int] = {
        "classify": 3,
        "multilabel": 3,
        "segment": 3,
        "depth": 1,
        "normals": 3,
        "embed": 0,
    }
    for kind, width in widths.items():
        assert Task("t", kind, classes).width == width
    assert Task("t", "regress", outputs=4).width == 4
