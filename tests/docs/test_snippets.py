"""Every code block of README.md and docs/ does what it says.

Each block runs alone in an empty folder; of console blocks, the lines `$ onetrunk …` must exit 0.
A block that cannot run here says why, in the line before it: <!-- not run: reason -->.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    not_run: str | None


def blocks(text: str, page: str) -> list[Block]:
    """The code blocks of a page that are programs."""
    found = []
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        reason = NOT_RUN.search(before)
        lines = [line.removeprefix(match[1]) for line in match[3].splitlines()]
        found.append(
            Block(
                page,
                before.count("\n") + 1,
                match[2],
                "\n".join(lines) + "\n",
                reason[1] if reason else None,
            )
        )
    return [b for b in found if b.language in ("python", "console", "bash")]


def commands(block: Block) -> list[str]:
    """The lines of a console block that a user types, continued lines joined."""
    text = re.sub(r"\s*\\\n\s*>?\s*", " ", block.text)
    typed = [line[2:].strip() for line in text.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s{2,}#.*", "", line) for line in typed]


def run(block: Block, folder: Path) -> None:
    if block.language == "python":
        programs = [[sys.executable, "-c", block.text]]
    else:
        typed = [line for line in commands(block) if line.split()[0] == "onetrunk"]
        programs = [[sys.executable, "-m", *shlex.split(line)] for line in typed]
    for program in programs:
        done = subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"{program[-1]}\n{done.stdout}{done.stderr}"


ALL = [b for page in PAGES for b in blocks(page.read_text("utf-8"), str(page.relative_to(ROOT)))]


@pytest.mark.parametrize("block", ALL, ids=lambda b: f"{b.page}:{b.line}")
def test_a_block_of_the_documentation_runs(block: Block, tmp_path: Path) -> None:
    if block.not_run:
        pytest.skip(block.not_run)
    run(block, tmp_path)


PAGE = """
Text.

```python
print(1)
```

<!-- not run: it trains for hours -->
```console
$ onetrunk data \\
    --json  # a comment
[]
$ make demo
```

```toml
a = 1
```

1. Indented:

   ```bash
   $ onetrunk data nowhere:x
   ```
"""


def test_blocks_are_found_with_their_reasons() -> None:
    python, console, bash = blocks(PAGE, "page")
    assert (python.text, python.not_run, python.line) == ("print(1)\n", None, 4)
    assert console.not_run == "it trains for hours"
    assert commands(console) == ["onetrunk data --json", "make demo"]
    assert commands(bash) == ["onetrunk data nowhere:x"]


def test_a_block_that_fails_is_found(tmp_path: Path) -> None:
    python = Block("page", 1, "python", "raise SystemExit(3)\n", None)
    for block in (python, blocks(PAGE, "page")[2]):
        with pytest.raises(AssertionError):
            run(block, tmp_path)
