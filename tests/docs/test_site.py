"""The documentation site builds without warnings, and its extensions work."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from sphinx.errors import ExtensionError

import onetrunk

ROOT = Path(__file__).parents[2]


def extension(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs/_ext")
    return importlib.import_module(name)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    done = subprocess.run(
        [*command, "-d", tmp_path / "doctrees", ROOT / "docs", tmp_path / "site"],
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "site/reference/api.html").read_text("utf-8")
    missing = [name for name in onetrunk.__all__ if f'id="onetrunk.{name}"' not in api]
    assert missing == []


def test_every_public_name_is_in_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = extension("public_api", monkeypatch).page().splitlines()
    found = [line.rpartition(" onetrunk.")[2] for line in lines if line.startswith(".. auto")]
    assert sorted(found) == sorted(name for name in onetrunk.__all__ if name[0] != "_")
    assert ".. autofunction:: onetrunk.train" in lines
    assert ".. autoclass:: onetrunk.Domain" in lines
    assert ".. autoexception:: onetrunk.BadInput" in lines


DOCSTRING = """One line with `code`, 2*3 and |x|, of `names`s.

A name_ that ends so, and ``two`` ticks.

    indented = "literal *block*"

- an item with `code`
  and its second line

:param a_b: of *this*

Args:
    x: the `value`

```python
print("*")
```
""".splitlines()

TRANSLATED = """One line with ``code``, 2\\*3 and \\|x\\|, of ``names``\\ s.

A name\\_ that ends so, and ``two`` ticks.

::

    indented = "literal *block*"


- an item with ``code``
  and its second line

:param a_b: of \\*this\\*

Args:
    x: the ``value``


::

   print("*")
""".splitlines()


def test_docstrings_become_restructured_text(monkeypatch: pytest.MonkeyPatch) -> None:
    translated = extension("markdown_docstrings", monkeypatch).translate(DOCSTRING)
    assert "\n".join(translated).strip() == "\n".join(TRANSLATED).strip()


def test_the_output_of_commands_is_read_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    command_line = extension("command_line", monkeypatch)
    keys, help_text = (
        command_line.printed("recipes", "keys"),
        command_line.printed("info", "--help"),
    )
    assert "steps" in keys
    assert "onetrunk info runs/" in help_text
    assert "\x1b" not in keys + help_text
    with pytest.raises(ExtensionError, match="failed"):
        command_line.printed("recipes", "no-such-recipe")


def test_the_source_tree_lists_every_file_with_its_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = extension("source_tree", monkeypatch)
    (tmp_path / "inner").mkdir()
    (tmp_path / "one.py").write_text('"""First line.\n\nMore.\n"""')
    (tmp_path / "inner/__init__.py").write_text('"""A package."""')
    assert tree.source_tree(tmp_path) == [("inner/", "A package."), ("one.py", "First line.")]


def test_every_source_file_has_a_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = extension("source_tree", monkeypatch)
    assert [name for name, text in tree.source_tree(tree.SOURCE) if not text] == []
