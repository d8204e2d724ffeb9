"""`ot.report` on real runs of a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onetrunk as ot
from onetrunk.errors import BadInput
from onetrunk.report import gather
from onetrunk.report import report as report_file
from onetrunk.runs.train import train_recipe
from tests.helpers.errors import raises
from tests.helpers.runs import make_run, opening
from tests.helpers.small import domain

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
    rng = np.random.default_rng(0)
    for kind in ("a", "b"):
        (root / kind).mkdir(parents=True)
        for i in range(40):
            picture = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(picture).save(root / kind / f"secret-{i}.png")


def test_notes_are_a_list_of_sentences(tmp_path: Path) -> None:
    with raises(BadInput, "notes: expected a list") as error:
        ot.report(tmp_path / "run", notes="one sentence", out=tmp_path / "page.html")
    assert error.value.got == "one string"


@pytest.mark.slow
def test_trained_runs_become_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "LATENCY_SECONDS", 0.0)
    folders = []
    for name in ("one", "two"):
        photos(tmp_path / name)
    for sharing in ("deep", "none"):
        text = RECIPE.format(out=(tmp_path / sharing).as_posix(), sharing=sharing)
        folders.append(train_recipe(ot.Recipe.parse(text, tmp_path)).folder)
    path = ot.report(folders[0], folders[1], tmp_path / "page.html")
    text = path.read_text("utf-8")
    assert "<h1>" in text and 'id="missing"' not in text and "secret-" in text
    for part in (
        "<h3>Time for a prediction",
        "Agreement of the domains' gradients",
        "<h3>Map of the features",
        "data:image/webp",
    ):
        assert part in text
    text = ot.report([folders[0]], out=tmp_path / "p.html", images=False).read_text("utf-8")
    assert "data:image" not in text and "secret-" not in text and "folder:one" not in text


def test_only_html_files_are_written(tmp_path: Path) -> None:
    domains = [domain("a")]
    make_run(tmp_path / "one", domains, {"a": 5.0})
    for name in ("report.pdf", "report", "."):
        out = tmp_path / name
        with raises(BadInput, "HTML", got=str(out), try_="report.html"):
            ot.report([tmp_path / "one"], out=out)
    out = tmp_path / "new" / "report.html"
    with opening(domains):
        assert ot.report([tmp_path / "one"], out=out) == out
    assert out.read_text("utf-8").startswith("<!doctype html>")


def test_by_default_the_report_is_in_the_folder_of_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domains = [domain("a")]
    for name in ("one", "two"):
        make_run(tmp_path / name, domains, {"a": 5.0})
    with opening(domains):
        path = ot.report([tmp_path / "one", tmp_path / "two"])
        assert path == tmp_path / "one" / "report.html"
        assert "replacing" not in capsys.readouterr().err
        assert ot.report([tmp_path / "one"]) == path
    assert f"replacing the earlier report {path}" in capsys.readouterr().err


def test_no_other_file_is_replaced_and_nothing_is_done_before_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "one", [domain("a")], {"a": 5.0})
    (tmp_path / "mine.html").write_text("<!doctype html><p>my page")
    (tmp_path / "file").write_text("")

    def gather(*_: object, **__: object) -> None:
        raise AssertionError("worked before the place was checked")

    monkeypatch.setattr(report_file, "gather", gather)
    with raises(BadInput, "an earlier report", try_="another --out, or remove the file"):
        ot.report([tmp_path / "one"], out=tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "<!doctype html><p>my page"
    with raises(BadInput, "cannot write"):
        ot.report([tmp_path / "one"], out=tmp_path / "file" / "report.html")


def test_an_unfinished_run_leaves_no_report(tmp_path: Path) -> None:
    make_run(tmp_path / "half", [domain("a")], {"a": 5.0}, finished=False)
    with raises(BadInput, "finished"):
        ot.report(tmp_path / "half")
    assert not (tmp_path / "half" / "report.html").exists()
