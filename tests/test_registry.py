"""Registries find built-in methods by their files' names and import them only when loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onetrunk.errors import BadInput
from onetrunk.registry import Registry
from tests.helpers.errors import raises

Method = Callable[[int], int]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[Method]]:
    """A package with two methods, a folder that is a method, and a private file."""
    package = tmp_path / "methods_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "plus_one.py").write_text("def plus(x):\n    return x + 1\n\nSOME_METHOD = plus\n")
    (package / "broken.py").write_text("raise RuntimeError('imported')\n")
    (package / "_shared.py").write_text("raise RuntimeError('imported')\n")
    (package / "folder").mkdir()
    (package / "folder" / "__init__.py").write_text("SOME_METHOD = abs\n")
    (package / "notes.txt").write_text("not a module")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Registry[Method]("methods_of_a_test", "some method")
    for name in [name for name in sys.modules if name.startswith("methods_of_a_test")]:
        del sys.modules[name]


def test_names_are_those_of_the_public_files(registry: Registry[Method]) -> None:
    assert list(registry) == ["broken", "folder", "plus-one"]
    assert "plus-one" in registry
    assert "plus_one" not in registry
    assert "_shared" not in registry
    assert not [name for name in sys.modules if name.startswith("methods_of_a_test.")]


def test_a_method_is_loaded_without_the_others(registry: Registry[Method]) -> None:
    assert registry.load("plus-one")(2) == 3
    assert registry.load("folder")(-2) == 2
    assert "methods_of_a_test.broken" not in sys.modules


def test_the_attribute_may_be_chosen(registry: Registry[Method]) -> None:
    assert registry.attribute == "SOME_METHOD"
    assert Registry[Method]("methods_of_a_test", "x", "plus").load("plus-one")(2) == 3


def test_a_user_method_is_loaded_by_module_and_name(registry: Registry[Method]) -> None:
    assert registry.load("methods_of_a_test.plus_one:plus")(2) == 3
    with raises(BadInput, "some method", "no_such_package", available=["plus-one"]):
        registry.load("no_such_package:thing")


def test_an_unknown_name_is_refused_with_the_names_available(registry: Registry[Method]) -> None:
    with raises(BadInput, "some method", got="plus_one", available=["plus-one", "folder"]):
        registry.load("plus_one")
