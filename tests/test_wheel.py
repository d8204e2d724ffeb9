"""The wheel contains all files that the package reads."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READ = """
import onetrunk as ot
from onetrunk.data.sources.pocket import cards
for name in cards():
    domain = ot.Domain(name, f"pocket:{name}")
    images, targets = domain.test.batch([0, 1])
    print(name, tuple(images.shape), sorted(targets))
"""


@pytest.mark.slow
def test_the_wheel_alone_lists_and_loads_the_embedded_domains(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 16e6
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        names = archive.namelist()
    assert any(name.endswith("py.typed") for name in names)
    recipes = ROOT / "src" / "onetrunk" / "recipes"
    assert {f"onetrunk/recipes/{path.name}" for path in recipes.glob("*.toml")} <= set(names)
    templates = ROOT / "src" / "onetrunk" / "report" / "templates"
    assert {f"onetrunk/report/templates/{path.name}" for path in templates.iterdir()} <= set(names)
    env = os.environ | {"PYTHONPATH": str(site), "ONETRUNK_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", READ], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = {line.split()[0] for line in done.stdout.splitlines()}
    assets = ROOT / "src" / "onetrunk" / "data" / "assets"
    assert found == {path.stem for path in assets.glob("*.json")}
