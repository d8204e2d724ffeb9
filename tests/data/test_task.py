"""Tasks are read as a recipe writes them; anything else is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from onetrunk.data.task import Task, check_name, read_tasks
from onetrunk.errors import BadInput
from tests.helpers.errors import raises


def test_the_short_form_names_a_task_after_its_kind() -> None:
    assert read_tasks(["classify", "depth"]) == (
        Task("classify", "classify"),
        Task("depth", "depth"),
    )


def test_the_long_form_has_kind_column_classes_and_unit() -> None:
    given = {
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
    ("given", "fields"),
    [
        (["clasify"], {"got": "clasify", "available": ["classify"]}),
        ({"a": "clasify"}, {"got": "clasify", "available": ["classify"]}),
        ({"a": {"column": "x"}}, {"got": None, "available": ["classify", "depth"]}),
        ({"a": {"kind": "classify", "colum": "x"}}, {"got": "colum", "available": ["column"]}),
        ({"a": 3}, {"got": 3, "available": ["classify"]}),
        ({"A b": "classify"}, {"got": "A b", "try_": "'a-b'"}),
        (["classify", "classify"], {"got": "classify"}),
        ("classify", {"got": "classify", "try_": 'tasks = ["classify"]'}),
        ([{"kind": "classify"}], {"got": {"kind": "classify"}}),
        ({"a": {"kind": "classify", "classes": ["x", "y", "x"]}}, {"got": "x"}),
        ({"a": {"kind": "classify", "classes": ["1", 1]}}, {"got": "1"}),
        ({"a": {"kind": "classify", "classes": "cat"}}, {"got": "cat", "try_": "['cat', …]"}),
        ({"a": {"kind": "regress", "outputs": 0}}, {"got": 0}),
        ({"a": {"kind": "segment", "classes": [str(i) for i in range(256)]}}, {"got": 256}),
    ],
    ids=str,
)
def test_invalid_tasks_are_refused_in_one_line(given: Any, fields: dict[str, Any]) -> None:
    with raises(BadInput, **fields) as error:
        read_tasks(given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", "a" * 65, "-a", "A", "a/b", "a b", "é", "a\n", "..", None])
def test_a_name_that_is_not_valid_for_a_file_is_refused(name: Any) -> None:
    with pytest.raises(BadInput):
        check_name(name, "domain")


def test_the_width_is_the_number_of_outputs_of_the_head() -> None:
    classes = ("a", "b", "c")
    widths = {"classify": 3, "multilabel": 3, "segment": 3, "depth": 1, "normals": 3, "embed": 0}
    for kind, width in widths.items():
        assert Task("t", kind, classes).width == width  # type: ignore[arg-type]
    assert Task("t", "regress", outputs=4).width == 4
