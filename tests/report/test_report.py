"""`ot.report` on a real run of seconds: recipes and losses come from above what draws."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import onetrunk as ot
from onetrunk.data.domain import Domain
from onetrunk.report import report as module
from onetrunk.report.report import loss_of
from onetrunk.report.write import write_report
from onetrunk.runs.train import train_recipe

RECIPE = """
name = "tiny"
out = "{out}"
[trunk]
arch = "resnet20"
sharing = "{sharing}"
[[domains]]
name = "one"
source = "folder:one"
size = 16
[[domains]]
name = "two"
source = "folder:two"
size = 16
[train]
steps = 2
batch = 4
eval_every = 2
"""


def photos(root: Path) -> None:
    chance = np.random.default_rng(0)
    for kind in ("a", "b"):
        (root / kind).mkdir(parents=True)
        for i in range(40):
            picture = chance.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(picture).save(root / kind / f"secret-{i}.png")


@pytest.mark.slow
def test_a_run_of_seconds_becomes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "write_report", partial(write_report, seconds=0))
    folders = []
    for name in ("one", "two"):
        photos(tmp_path / name)
    for sharing in ("deep", "none"):
        text = RECIPE.format(out=(tmp_path / sharing).as_posix(), sharing=sharing)
        folders.append(train_recipe(ot.Recipe.parse(text, tmp_path)).folder)
    path = ot.report(folders[0], folders[1], tmp_path / "page.html")
    text = path.read_text("utf-8")
    assert "<h1>" in text and "Left out" not in text and "secret-" in text
    for words in ("Latency", "gradients agree", "The domains in the features", "data:image/webp"):
        assert words in text
    text = ot.report([folders[0]], out=tmp_path / "p.html", images=False).read_text("utf-8")
    assert "data:image" not in text and "secret-" not in text and "folder:one" not in text


def test_the_loss_is_the_mean_over_a_domain_s_tasks() -> None:
    domain = Domain("rooms", "pocket:rooms")
    loss = loss_of([domain])
    out = {
        "segment": torch.zeros(1, 5, 2, 2),
        "depth": torch.full((1, 1, 2, 2), 3.0),
        "normals": torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2),
    }
    targets = {
        "segment": torch.zeros(1, 2, 2, dtype=torch.uint8),
        "depth": torch.full((1, 2, 2), 1.0),
        "normals": -out["normals"],
    }
    expected = (torch.log(torch.tensor(5.0)) + 2.0 + 2.0) / 3
    assert loss("rooms", out, targets).item() == pytest.approx(expected.item())
