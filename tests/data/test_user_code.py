"""The pixels in the cache belong to the code of a user's source."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onetrunk.data.domain import Domain
from onetrunk.data.objects import source_of
from onetrunk.data.sources import Item, NoTargets, SourceOptions
from onetrunk.data.task import Task
from onetrunk.data.user_code import code_of
from onetrunk.errors import Failed
from tests.helpers.errors import raises
from tests.helpers.fakes import picture, small


def decorated(function: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    @wraps(function)
    def call(self: Any, where: str) -> Any:
        return function(self, where)

    return call


class Light(NoTargets):
    """Grey images."""

    tasks: tuple[Task, ...] = (Task("classify", "classify", ("a", "b")),)
    level = 200

    def items(self) -> Iterator[Item]:
        for i in range(60):
            yield Item(f"{i:02}", str(i), "1", labels={"classify": "ab"[i % 2]})

    def image(self, where: str) -> np.ndarray[Any, Any]:
        return np.full((8, 8), self.level, np.uint8)


class Dark(Light):
    """The same keys and stamps, and other pixels."""

    @decorated
    def image(self, where: str) -> np.ndarray[Any, Any]:
        return np.full((8, 8), 10, np.uint8)


class Darker(Dark):
    """Decorated in the same way as its base."""

    @decorated
    def image(self, where: str) -> np.ndarray[Any, Any]:
        return np.full((8, 8), 5, np.uint8)


def mean_of(source: object) -> float:
    return Domain("shop", source, size=8).stats("train")[0][0]


@pytest.mark.parametrize("wrap", [lambda each: each, lambda each: {"train": each}])
def test_two_classes_with_equal_keys_and_stamps_have_their_own_pixels(wrap: Any) -> None:
    assert mean_of(wrap(Light())) == pytest.approx(200 / 255, abs=1e-4)
    assert mean_of(wrap(Dark())) == pytest.approx(10 / 255, abs=1e-4)


def test_edited_code_and_an_edited_attribute_have_other_pixels() -> None:
    def cell(level: int) -> type[Light]:
        class Edited(Light):
            pass

        Edited.level = level
        return Edited

    assert mean_of(cell(100)()) == pytest.approx(100 / 255, abs=1e-4)
    assert mean_of(cell(50)()) == pytest.approx(50 / 255, abs=1e-4)
    assert code_of(cell(100)()) == code_of(cell(100)())
    assert code_of(Dark()).split()[1] != code_of(Darker()).split()[1]


def test_the_name_of_a_function_that_makes_a_source_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_sources.py").write_text(
        "from tests.data.test_user_code import Light\n"
        "def make(level):\n"
        "    source = Light()\n"
        "    source.level = level\n"
        "    return source\n"
        "def light(rest, options): return make(200)\n"
        "def dark(rest, options): return make(10)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert mean_of("made_sources:light") == pytest.approx(200 / 255, abs=1e-4)
    assert mean_of("made_sources:dark") == pytest.approx(10 / 255, abs=1e-4)


@pytest.mark.parametrize("cache", [None, False])
def test_an_error_in_the_code_of_a_source_names_the_domain_and_the_image(cache: Any) -> None:
    source = small(24, images={"3": ValueError("my own bug")})
    with raises(
        Failed, "image 3", "ValueError", "fakes.py", got="my own bug", place="shop"
    ) as info:
        _ = Domain("shop", source, size=8, cache=cache).splits
    assert isinstance(info.value.__cause__, ValueError)


def test_built_in_sources_have_no_code() -> None:
    assert code_of(source_of([(picture(0), "a"), (picture(1), "b")], SourceOptions())) == ""
    assert code_of(small(4)) != ""


CODE = """
import sys
sys.path.insert(0, {root!r})
from onetrunk.data.user_code import code_of

class Mine:
    names = frozenset(("x", "y", "z"))
    def image(self, where):
        return where in {{"one", "two", "three"}}

print(code_of(Mine()))
"""


def test_the_code_is_the_same_in_every_process() -> None:
    script = CODE.format(root=str(Path(__file__).parents[2] / "src"))
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
