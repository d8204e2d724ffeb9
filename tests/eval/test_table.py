"""Tables of scores: rows by name, all formats, and damaged documents."""

import csv
import json

import pytest

from onetrunk.errors import BadInput
from onetrunk.eval.table import Row, Table
from tests.helpers.errors import raises

ROWS = (
    Row("digits", "classify", "error", 4.21, 1000, "classify", "%", "lower", True, 3.0, 5.5),
    Row("digits", "classify", "ece", 1.5, 1000, "classify", "%"),
    Row("shop_2", "category", "error", 10.0, 300, "classify", "%", "lower", True),
    Row("shop_2", "price", "nrmse", 0.12345678901, 250, "regress", "", "lower", True),
    Row("rooms", "segment", "miou", 40.54, 280, "segment", "%", "higher", True),
    Row("rooms", "depth", "abs", 0.6276, 270, "depth", "m", "lower", True),
)
TABLE = Table(ROWS, "test")


def test_values_by_name() -> None:
    assert TABLE.value("digits") == TABLE.value("digits", "classify", "error") == 4.21
    assert TABLE.value("digits", metric="ece") == 1.5
    assert TABLE.value("rooms", "depth") == 0.6276
    assert TABLE.domains == ("digits", "shop_2", "rooms")
    assert TABLE.tasks("shop_2") == ("category", "price")
    assert TABLE.errors() == {"digits": 4.21, "shop_2": 10.0}
    assert TABLE.counts() == {"digits": 1000, "shop_2": 300}
    assert [row.metric for row in TABLE.headlines()] == ["error", "error", "nrmse", "miou", "abs"]


def test_the_error_of_a_domain_is_the_mean_over_its_classifications() -> None:
    second = Row("digits", "parity", "error", 2.0, 500, "classify", "%", "lower", True)
    table = Table((*ROWS[:2], second), "test")
    assert table.errors() == {"digits": pytest.approx(3.105)}
    assert table.counts() == {"digits": 500}


@pytest.mark.parametrize(
    ("names", "got", "available"),
    [
        (("digit",), "digit", ["digits", "shop_2", "rooms"]),
        (("shop_2",), "none", ["category", "price"]),
        (("rooms", "depht"), "depht", ["segment", "depth"]),
        (("digits", None, "eec"), "eec", ["error", "ece"]),
        (("digits", "classify", "miou"), "miou", ["error", "ece"]),
    ],
)
def test_names_that_do_not_exist(names: tuple[str, ...], got: str, available: list[str]) -> None:
    with raises(BadInput, got=got, available=available):
        TABLE.value(*names)


def test_json_and_csv_are_read_back_intact() -> None:
    assert Table.from_json(json.loads(json.dumps(TABLE.to_json()))) == TABLE
    lines = list(csv.DictReader(TABLE.to_csv().splitlines()))
    assert len(lines) == len(ROWS)
    assert float(lines[3]["value"]) == 0.12345678901
    assert (lines[0]["low"], lines[1]["low"], lines[0]["headline"]) == ("3.0", "", "True")


DAMAGED = {
    "no rows": lambda d: d.pop("rows"),
    "no list": lambda d: d.update(rows={}),
    "no row": lambda d: d.update(rows=[3]),
    "a field less": lambda d: d["rows"][0].pop("value"),
    "a field more": lambda d: d["rows"][0].update(path="/etc"),
    "a text for a number": lambda d: d["rows"][0].update(value="4.21"),
    "a number for a name": lambda d: d["rows"][0].update(metric=3),
    "no number": lambda d: d["rows"][0].update(value=float("nan")),
    "an infinite interval": lambda d: d["rows"][0].update(high=float("inf")),
    "half an image": lambda d: d["rows"][0].update(count=0.5),
    "a name with a path": lambda d: d["rows"][0].update(domain="../x"),
    "an unknown kind": lambda d: d["rows"][0].update(kind="detect"),
    "an unknown way": lambda d: d["rows"][0].update(better="more"),
    "a headline that is a word": lambda d: d["rows"][0].update(headline="yes"),
    "a row twice": lambda d: d["rows"].append(d["rows"][0]),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_document_is_refused(how: str) -> None:
    document = json.loads(json.dumps(TABLE.to_json()))
    DAMAGED[how](document)
    with pytest.raises(BadInput):
        Table.from_json(document)


def test_text_for_a_terminal() -> None:
    text = str(TABLE)
    for words in (
        "4.21 % (3.00–5.50)",
        "ece 1.50 %",
        "0.1235",
        "0.6276 m",
        "error 7.11 %",
        "1,000",
    ):
        assert words in text
    assert "scores on test" in text and "…" not in text
    assert "mean of" not in str(Table(ROWS[:2], "test"))


def test_special_characters_are_escaped_in_latex() -> None:
    angle = Row("a_b", "up", "mean", 24.28, 10, "normals", "°", "lower", True, 20.0, 30.0)
    text = Table((*ROWS, angle), "test").to_latex()
    assert r"shop\_2 & category & error (\%) & \textbf{10.00} &  & 300 \\" in text
    assert r"a\_b & up & mean ($^\circ$) & \textbf{24.28} & 20.00--30.00 & 10 \\" in text
    assert all(line.count("&") == 5 for line in text.splitlines() if line.endswith(r"\\"))
    assert text.count(r"\addlinespace") == 3
    assert "°" not in text and "–" not in text
    price = Row("a", "price", "rmse", 1.0, 1, "regress", "\\x{$}^~\n&[b]")
    text = Table((price,), "test").to_latex()
    assert r"rmse (\textbackslash{}x\{\$\}\textasciicircum{}\textasciitilde{}" in text
    assert r"\textbackslash{}n\&[b])" in text and "[b]" in str(Table((price,), "test"))
