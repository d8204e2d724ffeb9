"""The tables and charts of the page on methods agree with the stored results."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_has_the_kept_figures() -> None:
    pictures = sorted((ROOT / "docs/pictures").glob("methods-*.svg"))
    before = [path.read_bytes() for path in pictures]
    script = str(ROOT / "benchmarks/methods.py")
    done = subprocess.run(
        [sys.executable, script, "half", "lite", "--show"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [path.read_bytes() for path in pictures] == before
    assert len(pictures) == 2
    page = (ROOT / "docs/adding-domains.md").read_text("utf-8").splitlines()
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) > 15
    assert [row for row in rows if row not in page] == []
