"""Summaries as text and HTML: escaped, short, and without decoding or loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onetrunk as ot
from onetrunk.config import Distill, Train
from onetrunk.display import Summary, plural
from onetrunk.eval.metrics.calibration import reliability
from onetrunk.eval.metrics.confusion import ConfusionMatrix
from onetrunk.eval.table import Row, Table
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.runs.change_domain import DomainResult
from onetrunk.runs.compare import Comparison
from onetrunk.runs.open import Run
from onetrunk.testing.models import make_model
from tests.helpers.fakes import small

EVIL = "<script>alert(1)</script>\x1b[31m"


@pytest.fixture(scope="module")
def model() -> Universal:
    return make_model(lambda: Trunk("resnet20"), 32)


def test_text_has_aligned_columns() -> None:
    summary = Summary("A", [("size", "3")], ("name", "n"), [("a", "1"), ("longer", "22")])
    assert str(summary).splitlines() == [
        "A",
        "  size: 3",
        "  name    n",
        "  a       1",
        "  longer  22",
    ]


def test_both_forms_escape_names_and_labels() -> None:
    summary = Summary(EVIL, [(EVIL, EVIL)], (EVIL,), [(EVIL,)])
    assert "\x1b" not in str(summary)
    page = summary.html()
    assert "<script" not in page
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;alert(1)") == 5


def test_plurals() -> None:
    assert [plural(1, "class", "classes"), plural(2000, "image")] == ["1 class", "2,000 images"]


def test_a_model_shows_its_domains_and_not_its_layers(model: Universal) -> None:
    assert repr(model).startswith("Universal(resnet20, 3 domains, ")
    assert "Conv2d" not in str(model)
    lines = str(model).splitlines()
    assert len(lines) < 12
    assert any(line.split()[0] == "bees" and "3 classes: " in line for line in lines)
    assert "Conv2d" in str(model.trunk)
    assert "<td>bees</td>" in model._repr_html_()


def test_the_parameters_of_a_model_are_counted_once(model: Universal) -> None:
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    templates = sum(p.numel() for p in model.parameters()) - count
    assert templates > 0
    assert f"{count / 1000:.3g} k" in repr(model)


def test_a_domain_is_shown_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = ot.Domain("shop", small())
    monkeypatch.setattr(ot.Domain, "decoded", property(lambda _: pytest.fail("decoded")))
    text = str(domain)
    assert text.splitlines()[0] == repr(domain)
    assert "train " in text
    assert "classes: " in text
    assert domain._repr_html_().count("<table>") == 2


def test_a_domain_that_cannot_be_read_is_shown_with_the_reason(tmp_path: Path) -> None:
    domain = ot.Domain("shop", f"folder:{tmp_path / 'missing'}")
    assert "cannot be read" in str(domain)


def test_a_pack_shows_its_trunk_and_scores(model: Universal) -> None:
    pack = model.pack("ants")
    assert repr(pack).startswith("Pack('ants', ")
    assert pack.sha256[:12] in str(pack)
    assert "tensor(" not in str(pack)


def test_a_table_in_a_notebook() -> None:
    row = Row("shop", "kind", "error", 4.25, 300, "classify", "%", headline=True, low=3, high=5)
    table = Table((row,), "test")
    assert repr(table) == "Table(test, 1 domain)"
    assert "4.25 % (3.00–5.00)" in table._repr_html_()


def test_a_result_shows_what_is_known(model: Universal) -> None:
    result = DomainResult("bees", model, {})
    assert str(result).splitlines()[0] == repr(result) == "DomainResult('bees')"


def test_comparisons(tmp_path: Path) -> None:
    row = {"errors": {"new": 12.5}, "old": {"a": 3.0}}
    document: dict[str, Any] = {
        "run": "pocket",
        "own": {"a": ["classify"]},
        "domains": {"new": ["classify"]},
        "rows": {"parallel": {"0": row, "1": row}},
        "failed": {},
    }
    cells = str(Comparison(tmp_path, document)).splitlines()[-1].split()
    assert cells == ["parallel", "2", "12.50", "3.00"]
    score = {"domain": "a", "task": "t", "metric": "error", "unit": "%", "values": {"joint": 7.0}}
    document = {"recipe": "pocket", "runs": {"frozen": {}, "joint": {}}, "rows": [score]}
    assert "<td>7.00</td>" in Comparison(tmp_path, document)._repr_html_()


def test_settings_show_what_was_set() -> None:
    assert repr(Train(steps=5)) == str(Train(steps=5)) == "Train(steps=5)"
    assert repr(Distill()) == "Distill()"


def test_a_saved_model_is_shown_without_building_it(
    model: Universal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ot.save(model, tmp_path / "m")
    monkeypatch.setattr("onetrunk.runs.open.load", lambda *_: pytest.fail("built"))
    run = Run(tmp_path / "m")
    text = str(run)
    assert text.splitlines()[0] == repr(run)
    assert model.trunk.fingerprint()[:12] in text
    assert any(line.split()[0] == "cats" for line in text.splitlines())


def test_a_budget_is_short(model: Universal) -> None:
    budget = ot.budget(model)
    assert repr(budget).startswith("Budget(resnet20, 3 domains, ")
    assert "<td>bees</td>" in budget._repr_html_()
    assert "alone" in str(budget)  # the table of the command line


def test_a_confusion_matrix_shows_its_accuracy_and_pairs() -> None:
    true, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 1, 0])
    matrix = ConfusionMatrix.of((EVIL, "b"), true, predicted)
    assert repr(matrix) == "ConfusionMatrix(2 classes, 5 images)"
    lines = str(matrix).splitlines()
    assert "40.00 % (2 of 5 images)" in lines[1]
    assert lines[3].split()[-3:] == ["2", "66.7", "%"]
    assert "<script" not in matrix._repr_html_()
    nothing = ConfusionMatrix.of(("a",), true[:0], predicted[:0])
    assert "unknown" in str(nothing)


def test_reliability_shows_its_bins() -> None:
    found = reliability(np.array([0.95, 0.97, 0.5]), np.array([True, False, True]))
    assert repr(found).startswith("Reliability(3 images, calibration error ")
    assert len(str(found).splitlines()) == 4  # the title, the head and two bins with images
    assert "50.0 %" in str(found)


def test_an_inspection_is_short() -> None:
    found = ot.inspect(ot.Domain("shop", small()))
    assert repr(found).startswith("Inspection(")
    assert len(repr(found)) < 200
    assert f"train {found.splits['train']}" in str(found)
