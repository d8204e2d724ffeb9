"""`onetrunk baselines`: the table and what to type next, or JSON alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.helpers.verbs import Ran, one_line, photos

SHORT = ("--only", "joint", "--device", "cpu", "--set", "train.steps=1", "--set", "train.batch=4")


def written(root: Path) -> Path:
    photos(root / "photos")
    path = root / "shop.toml"
    path.write_text(
        'name = "shop"\n[trunk]\narch = "resnet20"\n'
        '[[domains]]\nname = "pets"\nsource = "folder:photos"\nsize = 8\n'
    )
    return path


def test_a_table_and_what_to_type_next(onetrunk: Callable[..., Ran], tmp_path: Path) -> None:
    written(tmp_path)
    ran = onetrunk("baselines", "shop.toml", *SHORT)
    assert ran.code == 0, ran.err
    for word in ("joint", "pets", "error %", "1.00×", "wrote runs/shop-baselines.json"):
        assert word in ran.out
    train, report = [line for line in ran.out.splitlines() if line.startswith("try: ")]
    assert train == "try: onetrunk train shop.toml --set train.steps=1 --set train.batch=4"
    assert report == "try: onetrunk report runs/shop --baseline runs/shop-joint"
    again = onetrunk("baselines", "shop.toml", *SHORT, "--json")
    assert json.loads(again.out)["runs"]["joint"]["out"] == "runs/shop-joint"
    assert "stays as it is" in again.err


def test_a_kind_that_is_none_is_refused(onetrunk: Callable[..., Ran], tmp_path: Path) -> None:
    written(tmp_path)
    said = one_line(onetrunk("baselines", "shop.toml", "--only", "frozen,jiont"))
    assert "got: 'jiont'; available: joint" in said
