"""The speed benchmarks run and write flat JSON objects, with ratios named `…_ratio`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "aim"),
    [
        ("model.py", 22, "at most 1.05"),
        ("infer.py", 6, "at most 1.05"),
        ("train.py", 6, "≥ 0.95"),
        ("grow.py", 5, "≤ 0.65"),
        ("growth.py", 4, "≈ 1"),
    ],
)
def test_the_quick_table(name: str, count: int, aim: str, tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), "--quick", "--json", str(kept)],
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(kept.read_text())
    ratios = {name: value for name, value in figures.items() if name.endswith("_ratio")}
    assert len(ratios) == count
    assert all(0 < value < 100 for value in ratios.values())
    assert {"date", "machine", "torch", "seed", "batch"} <= figures.keys()
    assert aim in done.stdout


@pytest.mark.slow
def test_the_quick_table_of_few_images(tmp_path: Path) -> None:
    kept = tmp_path / "few.json"
    words = [sys.executable, str(FOLDER / "few.py"), "--quick", "--json", str(kept)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    figures = json.loads(kept.read_text())
    (cell,) = figures["cells"]
    assert cell["held_out"] == 40 and figures["seeds"] == [0]
    methods = ("class_means", "head", "norm", "parallel")
    assert cell["default"] in [cell[name] for name in methods]
    least = min(figures[f"{name}_2"] for name in methods)
    assert figures["default_minus_best_2"] == pytest.approx(figures["default_2"] - least, abs=2e-3)
    again = subprocess.run(words, capture_output=True, text=True, check=True)  # nothing is trained
    assert (
        "step" not in again.stderr
        and done.stdout.splitlines()[-3:] == again.stdout.splitlines()[-3:]
    )


@pytest.mark.slow
def test_the_quick_table_of_unify(tmp_path: Path) -> None:
    kept = tmp_path / "unify.json"
    words = [sys.executable, str(FOLDER / "unify.py"), "--quick", "--json", str(kept)]
    subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    figures = json.loads(kept.read_text())
    rows = figures["rows"]
    assert {"specialists", "joint", "distilled", "unify"} <= rows.keys()
    assert rows["specialists"]["minus_specialists"] == {"value": 0, "low": 0, "high": 0}
    assert rows["unify"]["mean_error"] == rows[figures["chosen"]["0"]]["mean_error"]
    assert all(0 < row["bytes_ratio"] < 2 for row in rows.values())
    assert len(figures["choice_loses"]) == 1


@pytest.mark.slow
def test_the_quick_table_of_peers(tmp_path: Path) -> None:
    kept = tmp_path / "peers.json"
    words = [sys.executable, str(FOLDER / "unify_peers.py"), "--quick", "--json", str(kept)]
    subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    figures = json.loads(kept.read_text())
    assert figures["seconds_ratio"] > 0 and 0 < figures["bytes_ratio"] < 2
    assert all(0 <= figures[f"{name}_error"] <= 100 for name in ("timm", "unify"))
