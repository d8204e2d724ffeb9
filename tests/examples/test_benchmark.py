"""The speed table runs, and keeps flat figures with ratios named so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "model.py"


@pytest.mark.slow
def test_the_quick_table(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(FILE), "--quick", "--json", str(kept)],
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(kept.read_text())
    ratios = {name: value for name, value in figures.items() if name.endswith("_ratio")}
    assert len(ratios) == 22
    assert all(0 < value < 100 for value in ratios.values())
    assert {"date", "machine", "torch", "seed", "batch"} <= figures.keys()
    assert "at most 1.05" in done.stdout
