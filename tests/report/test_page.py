"""The page: it shows all findings, requests nothing, and hostile names stay text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError

from onetrunk.data.domain import Domain
from onetrunk.data.sources import Item
from onetrunk.data.task import Task
from onetrunk.display import scaled, three_digits
from onetrunk.eval.latency import Latency, LatencyRow
from onetrunk.eval.margins import Estimate
from onetrunk.report.findings import Findings
from onetrunk.report.formatting import milliseconds, times
from onetrunk.report.gather import gather
from onetrunk.report.page import environment, images_needed, page
from onetrunk.report.verdict import TaskComparison
from tests.helpers.runs import make_run, opening
from tests.helpers.small import DENSE, Made, domain
from tests.report.markup import check

EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "it's & <b>bold</b>")


class Evil(Made):
    """A source whose file names are markup."""

    def items(self) -> Iterator[Item]:
        for item in super().items():
            yield replace(item, key=f"<img src=//evil.example/{item.key}>'\"")


def make_domains() -> list[Domain]:
    """Return a hostile domain, one with several kinds of tasks, one with maps, and a plain one."""
    kinds = (
        Task("tags", "multilabel", ("x", "y", "<i>z</i>")),
        Task("age", "regress", unit="years"),
        Task("near", "embed", ("p", "q")),
    )
    evil = (Task("classify", "classify", EVIL),)
    return [
        Domain("evil", Evil(evil), evil, size=16, cache=False),
        domain("kinds", *kinds, seed=1),
        domain("rooms", *DENSE, seed=2),
        domain("plain", seed=3),
    ]


ONE = {"evil": 20.0, "kinds": 20.0, "rooms": 15.0, "plain": 60.0}
ALONE = {"evil": 20.0, "kinds": 20.0, "rooms": 15.0, "plain": 20.0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Domain]]:
    """Return the folder of a finished run and its baseline, and their domains."""
    root, domains = tmp_path_factory.mktemp("runs"), make_domains()
    make_run(root / "shop", domains, ONE, images=600)
    make_run(root / "alone", domains, ALONE, sharing="none", images=600)
    return root, domains


@pytest.fixture(scope="module")
def complete(runs: tuple[Path, list[Domain]]) -> Findings:
    root, domains = runs
    with opening(domains):
        return gather([root / "shop"], root / "alone")


def test_all_findings_are_on_the_page(complete: Findings) -> None:
    assert complete.missing == {}
    text = page(complete)
    found = check(text)
    assert found.text["h1"] == [complete.verdict.sentence]
    # the normals of rooms are all equal, and the tags of kinds are as noisy as their frequencies
    assert complete.verdict.sentence.startswith("Not meaningful yet: on 2 of 4 domains (rooms and")
    assert found.text["h2"] == [
        "All networks: test error against size",
        "Test scores by domain",
        "Size and speed",
        "Example predictions",
        "Errors by class, and the worst images",
        "Training",
        "Data",
        "Recipe and environment",
        "Technical details",
    ]
    headings = {heading.strip() for heading in found.text["h3"]}
    assert headings >= {
        *("Summary scores of the literature", "Other metrics", "Time for a prediction"),
        *("What each domain adds", "Map of the features", "Selected checkpoints"),
        *("Similarity of the domains' features (CKA)",),
        *("Validation error", "Training loss"),
    }
    assert "all domains mixed" in text
    assert len(found.having("map")) == 1 and len(found.having("map runs")) == 1
    assert len(found.having("panel")) == 2 * 8  # tasks: error and loss
    assert len(found.having("heat")) == 4 + 1  # depths (pooled is the last stage), gradients
    assert len(found.having("strip")) == 8  # one per task
    assert found.count("img") > 40
    assert 'alt="segment' not in text and 'alt="parts: truth' in text


def rows(text: str) -> dict[str, str]:
    """Return the text of the rows of the table of scores by their heads."""
    table = text.split('<section id="scores">')[1].split("</table>")[0]
    plain = [re.sub(r"<[^>]+>", " ", row) for row in table.split("<tr>")]
    return {row.split()[0]: row for row in plain if row.split()}


def test_scores_stand_beside_those_of_the_baseline(complete: Findings) -> None:
    text = page(complete)
    plain = rows(text)["plain"]
    for part in ("worse", "60.00 %", "20.00 %", "+40.00 points", "600"):
        assert part in plain
    assert "as good" in rows(text)["evil"] and "majority class  66.67 %" in rows(text)["evil"]
    assert "too early" in text and "by the scores: " in text
    assert "1 seed (0)" in text and "Decathlon score</dt>" not in text
    size = complete.evaluated.cost
    other = complete.baseline.cost if complete.baseline else None
    assert size is not None and other is not None
    assert f"{three_digits(size.bytes / other.bytes)}×" in text


def test_gradients_whose_halves_disagree_are_not_a_result(complete: Findings) -> None:
    found = complete.measured.gradient_agreement
    assert found is not None
    shown = "<h3>Agreement of the domains' gradients"
    for own, is_shown in ((0.9, True), (-0.56, False)):
        halves = np.full(len(found.domains), 0.9)
        halves[0] = own
        measured = replace(complete.measured, gradient_agreement=replace(found, own=halves))
        text = page(replace(complete, measured=measured))
        check(text)
        assert (shown in text.replace("&#39;", "'")) is is_shown
        assert ("are mostly noise" in text) is not is_shown


def test_captions_state_the_counts(complete: Findings) -> None:
    found = complete.measured.feature_map
    assert found is not None
    few = replace(found, domain=np.array([0] * 3 + [1] * 5), xy=found.xy[:8])
    two = replace(few, domains=("ants", "bees"))
    gradients = complete.measured.gradient_agreement
    assert gradients is not None
    one_pair = replace(
        gradients,
        domains=("ants", "bees"),
        cosine=np.array([[1.0, -0.5], [-0.5, 1.0]]),
        own=np.array([0.9, 0.9]),
        images=gradients.images[:2],
    )
    measured = replace(complete.measured, feature_map=two, gradient_agreement=one_pair)
    text = page(replace(complete, measured=measured))
    assert "8 test images (3 of ants, 5 of bees)" in text
    even = replace(two, domain=np.array([0, 1] * 4))
    measured = replace(complete.measured, feature_map=even)
    assert "8 test images (4 of each domain)" in page(replace(complete, measured=measured))
    assert "The one pair is below 0." in text


def test_numbers_of_a_column_have_the_same_digits() -> None:
    assert [times(1.1, 1), times(1.164, 1), times(1, 1)] == ["1.10×", "1.16×", "1.00×"]
    assert [milliseconds(v) for v in (3.5, 3.49, 350.0, 999.7, 1234.5)] == [
        *("3.50", "3.49", "350", "1000", "1234")
    ]
    assert [scaled(v, "B") for v in (37, 1100, 1_164_000)] == ["37 B", "1.10 kB", "1.16 MB"]


def test_the_chosen_run_and_the_reasons_are_shown(complete: Findings) -> None:
    assert "The verdict is about shop (resnet20, norm domain)." in page(complete)
    reason = "parts keeps its own network: validation 12.1 against 9.8 %"
    for chosen, words in (
        (0, "shop (resnet20, norm domain), which was chosen by its scores on validation images."),
        (-1, "images, alone was chosen. The best of the other runs is shop (resnet20"),
    ):
        text = page(replace(complete, chosen=chosen, notes=(reason,)))
        check(text)
        assert words in text and f"<li>{reason}</li>" in text


def test_hostile_names_are_text(complete: Findings) -> None:
    text = page(complete)
    for name in (*EVIL, "<i>z</i>", "<img src=//evil"):
        assert name not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;img src=//evil.example/" in text


def test_every_text_of_the_findings_is_escaped(complete: Findings) -> None:
    hostile = replace(
        complete,
        created="<u>",
        version="<u>",
        machine="<u>",
        recipes=(("<u>", "</pre><u>"),),
        environments=(("<u>", {"<u>": {"<u>": ["<u>"]}}),),
        missing={"<u>": "<u>"},
        splits=tuple(replace(s, domain="<u>", method="<u>") for s in complete.splits),
        curves=tuple(replace(task, domain="<u>", task="<u>") for task in complete.curves),
        verdict=replace(complete.verdict, sentence="<u>", notes=("<u>",)),
        notes=("<u>",),
        columns=tuple(replace(c, name="<u>", description="<u>") for c in complete.columns),
    )
    text = page(hostile)
    check(text)
    assert "<u>" not in text and "&lt;u&gt;" in text


def test_a_misspelled_name_in_a_template_is_an_error() -> None:
    template = environment().from_string("{{ findings.nonsense }}")
    with pytest.raises(UndefinedError):
        template.render(findings={})


def test_without_images_no_image_or_file_name_is_on_the_page(
    runs: tuple[Path, list[Domain]],
) -> None:
    root, domains = runs
    with opening(domains):
        found = gather([root / "shop"], root / "alone", images=False)
    text = page(found)
    assert check(text).count("img") == 0 and "data:image" not in text
    for name in ("evil.example", ".png", "secret/place", "somewhere/private"):
        assert name not in text
    assert "folder:…" in text
    assert 'id="missing"' in text
    assert found.measured.feature_map is not None and found.measured.gradient_agreement is not None


def test_without_a_baseline(runs: tuple[Path, list[Domain]]) -> None:
    root, domains = runs
    with opening(domains):
        found = gather([root / "shop"])
    text = page(found)
    check(text)
    assert found.verdict.decision == "no baseline"
    assert "One network for 4 domains" in found.verdict.sentence
    assert "How the verdict is decided" not in text
    assert "calculated, not trained" in text


def test_the_latency_of_one_image_is_explained(complete: Findings) -> None:
    def shown(found: Latency) -> str:
        text = page(replace(complete, measured=replace(complete.measured, latency=found)))
        check(text)
        return " ".join(text.split())

    rows = [LatencyRow(name, 1, 1.5, 1.1, 1.0) for name in "abc"]
    rows += [LatencyRow("a", 64, 9.0, 9.0, 1.0), LatencyRow("", 64, 9.0, None, 1.0)]
    text = shown(Latency(tuple(rows), "cpu", 1, trained=True))
    assert "one network takes 1.50× the time of a separate network (median over domains), " in text
    assert "<code>model.for_domain(NAME)</code>, takes 1.10×." in text
    alone = (LatencyRow("a", 1, 1.02, 1.0),)
    text = shown(Latency(alone, "cpu", 1, trained=False))
    assert "takes 1.02× the time of its copy for one domain (median over domains). " in text
    batches = (LatencyRow("a", 64, 1.02, 1.0),)
    assert "median over domains" not in shown(Latency(batches, "cpu", 1, trained=False))


@pytest.mark.parametrize(
    ("value", "half", "margin", "count", "expected"),
    [
        (0.0, 2.0, 1.0, 1000, 4000),  # half the interval needs four times the images
        (0.5, 1.5, 1.0, 459, 4200),
        (1.0, 2.0, 1.0, 1000, None),  # on the margin, no number of images would decide
        (0.9, 2.0, 1.0, 1000, None),  # 400 times as many
    ],
)
def test_how_many_images_would_decide(
    value: float, half: float, margin: float, count: int, expected: int | None
) -> None:
    d = Estimate(value, value - half, value + half)
    comparison = TaskComparison("a", "classify", d, d, d, margin, "undecided")
    assert images_needed(comparison, count) == expected
