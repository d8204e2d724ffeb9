"""Every code block of README.md and docs/ does what it says.

A page's blocks run one after the other, as a reader types them, in a folder that holds what the
pages speak of: class folders `photos/`, a table `shop.csv`, scenes with dense targets. Of console
blocks, the lines `$ onetrunk …` must exit 0. A block that cannot run here says why, in the line
before it: <!-- not run: reason -->. A block of the reader's own file has <!-- file: NAME --> there.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.typed import typed

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
FILE = re.compile(r"<!-- file: (\S+) -->\s*\Z")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    not_run: str | None
    file: str | None = None


def blocks(text: str, page: str) -> list[Block]:
    """The code blocks of a page that are programs."""
    found = []
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        reason, file = NOT_RUN.search(before), FILE.search(before)
        lines = [line.removeprefix(match[1]) for line in match[3].splitlines()]
        found.append(
            Block(
                page,
                before.count("\n") + 1,
                match[2],
                "\n".join(lines) + "\n",
                reason[1] if reason else None,
                file[1] if file else None,
            )
        )
    return [b for b in found if b.file or b.language in ("python", "console", "bash")]


def commands(block: Block) -> list[str]:
    """The lines of a console block that a user types, continued lines joined."""
    text = re.sub(r"\s*\\\n\s*>?\s*", " ", block.text)
    typed = [line[2:].strip() for line in text.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s{2,}#.*", "", line) for line in typed]


def run(block: Block, folder: Path) -> None:
    if block.file is not None:
        (folder / block.file).write_text(block.text, "utf-8")
        return
    programs: list[str | list[str]] = [block.text]
    if block.language != "python":
        words = [shlex.split(line) for line in commands(block)]
        programs = [each for each in words if each[0] == "onetrunk"]
    for program in programs:
        to = None
        if isinstance(program, list) and ">" in program:  # as the shell does: into a file
            *program, _, to = program
        code, printed = typed(program, folder)
        assert code == 0, f"{program}\n{printed}"
        if to is not None:
            (folder / to).write_text(printed)


def what_a_reader_has(folder: Path) -> None:
    """The data that the pages speak of."""
    chance = np.random.default_rng(0)
    rows = ["path,item_id,category,price"]
    for kind in ("cat", "dog", "fish"):
        (folder / "photos" / kind).mkdir(parents=True)
        for i in range(30):
            picture = chance.integers(0, 256, (40, 60, 3), np.uint8)
            path = f"photos/{kind}/{i}.png"
            Image.fromarray(picture).save(folder / path)
            rows.append(f"{path},{kind}-{i // 2},{kind},{i / 2}")
    (folder / "shop.csv").write_text("\n".join(rows) + "\n")
    for part in ("images", "segment", "depth"):
        (folder / "scenes" / part).mkdir(parents=True)
    for i in range(20):
        picture = chance.integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(picture).save(folder / f"scenes/images/{i}.png")
        classes = chance.integers(0, 3, (24, 32)).astype(np.uint8)
        Image.fromarray(classes).save(folder / f"scenes/segment/{i}.png")
        np.save(folder / f"scenes/depth/{i}.npy", chance.uniform(1, 9, (24, 32)).astype("f4"))


LATER = [pytest.mark.slow, pytest.mark.timeout(1800)]  # some train the default trunk
# half a minute or more each; the slow tests run them
LONG = (
    "README.md",
    "adding-domains.md",
    "distilling.md",
    "evaluating.md",
    "model.md",
    "training.md",
    "tutorial.md",
)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name, marks=LATER if page.name in LONG else []) for page in PAGES],
)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    found = blocks(page.read_text("utf-8"), page.name)
    what_a_reader_has(tmp_path)
    for block in found:
        if block.not_run is None:
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
