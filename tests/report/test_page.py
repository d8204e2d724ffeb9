"""The page: everything that was found is on it, nothing else gets out, hostile names stay text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.sources import Item
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed
from onetrunk.eval.gradient_agreement import Loss
from onetrunk.report.findings import Findings
from onetrunk.report.gather import gather
from onetrunk.report.page import page
from onetrunk.report.part_scores import images_needed
from onetrunk.report.verdict import Compared, Estimate
from onetrunk.report.write import write_report
from tests.helpers.runs import make_run
from tests.helpers.small import DENSE, Made, domain

EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "it's & <b>bold</b>")


class Evil(Made):
    """Names of files that would be markup."""

    def items(self) -> Iterator[Item]:
        for item in super().items():
            yield replace(item, key=f"<img src=//evil.example/{item.key}>'\"")


def worlds() -> list[Domain]:
    """A hostile domain, one of every kind of task, one with maps."""
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


def squares(_: Sequence[Domain]) -> Loss:
    def loss(_: str, out: object, __: object) -> Tensor:
        assert isinstance(out, dict)
        return torch.stack([value.float().square().mean() for value in out.values()]).mean()

    return loss


ONE = {"evil": 20.0, "kinds": 20.0, "rooms": 15.0, "plain": 60.0}
ALONE = {"evil": 20.0, "kinds": 20.0, "rooms": 15.0, "plain": 20.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Domain]]:
    """A run and its baseline, finished."""
    root, domains = tmp_path_factory.mktemp("runs"), worlds()
    make_run(root / "shop", domains, ONE, images=600)
    make_run(root / "alone", domains, ALONE, sharing="none", images=600)
    return root, domains


@pytest.fixture(scope="module")
def whole(made: tuple[Path, list[Domain]]) -> Findings:
    root, domains = made
    return gather(
        [root / "shop"],
        root / "alone",
        open_domains=lambda _: domains,
        make_loss=squares,
        seconds=0,
    )


class Page(HTMLParser):
    """Tags with their attributes, and the texts inside of headings and cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.unclosed: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.text[tag][-1] += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def check(text: str) -> Page:
    """What holds of every report: well-formed, self-contained, without script, accessible."""
    found = Page(text)
    assert found.unclosed == [] and found.open == []
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "iframe", "object", "embed", "form", "base", "audio", "video"}
    for tag, given in found.tags:
        for key, value in given.items():
            assert not key.startswith("on"), (tag, key)
            if key in ("src", "href"):
                assert (value or "").startswith(("data:", "#")), (tag, value)
        if tag == "img":
            assert given.get("alt")
        if given.get("role") == "img":
            assert given.get("aria-label")
    assert "url(" not in text and "@import" not in text
    ids = [given["id"] for _, given in found.tags if "id" in given]
    assert len(ids) == len(set(ids))
    links = {given["href"] for tag, given in found.tags if tag == "a"}
    assert links <= {f"#{name}" for name in ids}
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert "nan" not in re.findall(r"[\w.]+", re.sub(r"base64,[^\"]+", "", text))
    assert len(text) < 3_000_000
    return found


def test_everything_that_was_found_is_on_the_page(whole: Findings) -> None:
    assert whole.missing == {}
    text = page(whole)
    found = check(text)
    assert found.text["h1"] == [whole.verdict.sentence]
    assert whole.verdict.sentence.startswith("Keep 1 of the 4 separate networks (plain)")
    headings = found.text["h2"]
    assert headings == [
        "Scores, domain by domain",
        "Size and speed",
        "Right and wrong predictions",
        "What happens inside",
        "Training",
        "Images",
        "Recipe and environment",
    ]
    for words in (
        *("The rules of the verdict", "In few numbers", "Other metrics", "Latency"),
        *("What one more domain costs", "The domains in the features", "Which weights were kept"),
        *("How alike the domains&#x27; features are, by depth", "Validation error"),
        *("Whether the domains&#x27; gradients agree", "Training loss", "all domains mixed"),
    ):
        assert words in text
    maps = [given for tag, given in found.tags if given.get("class") == "map"]
    panels = [given for tag, given in found.tags if given.get("class") == "panel"]
    heats = [given for tag, given in found.tags if given.get("class") == "heat"]
    strips = [given for tag, given in found.tags if given.get("class") == "strip"]
    assert len(maps) == 1
    assert len(panels) == 2 * 8  # tasks: error and loss
    assert len(heats) == 4 + 1  # depths (pooled is the last stage), gradients
    assert len(strips) == 8  # one a task
    assert found.count("img") > 40
    assert 'alt="segment' not in text and 'alt="parts: truth' in text


def test_scores_stand_beside_the_baseline_s(whole: Findings) -> None:
    text = page(whole)
    row = next(r for r in text.split("<tr>") if r.startswith('<th scope="row">plain'))
    plain = re.sub(r"<[^>]+>", " ", row)
    assert "worse" in plain and "60.00 %" in plain and "20.00 %" in plain and "+40.00 %" in plain
    assert "600" in plain
    evil = next(r for r in text.split("<tr>") if r.startswith('<th scope="row">evil'))
    assert "as good" in evil
    size = whole.evaluated.cost
    other = whole.baseline.cost if whole.baseline else None
    assert size is not None and other is not None
    assert f"{size.bytes / other.bytes:.3g}×" in text


def test_hostile_names_are_text(whole: Findings) -> None:
    text = page(whole)
    for name in (*EVIL, "<i>z</i>", "<img src=//evil"):
        assert name not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;img src=//evil.example/" in text
    hostile = replace(
        whole,
        made="<u>",
        version="<u>",
        machine="<u>",
        recipes=(("<u>", "</pre><u>"),),
        environments=(("<u>", {"<u>": {"<u>": ["<u>"]}}),),
        missing={"<u>": "<u>"},
        splits=tuple(replace(s, domain="<u>", how="<u>") for s in whole.splits),
        verdict=replace(whole.verdict, sentence="<u>", notes=("<u>",)),
        columns=tuple(replace(c, name="<u>", what="<u>") for c in whole.columns),
    )
    check(page(hostile))
    assert "<u>" not in page(hostile)


def test_without_pictures_nothing_of_the_images_is_left(made: tuple[Path, list[Domain]]) -> None:
    root, domains = made
    found = gather(
        [root / "shop"], root / "alone", open_domains=lambda _: domains, images=False, seconds=0
    )
    text = page(found)
    parsed = check(text)
    assert parsed.count("img") == 0 and "data:image" not in text
    for name in ("evil.example", ".png", "secret/place", "somewhere/private"):
        assert name not in text
    assert "folder:…" in text
    assert "left out as asked" in text
    assert found.conflict is None and found.embedding is not None


def test_without_a_baseline(made: tuple[Path, list[Domain]]) -> None:
    root, domains = made
    found = gather([root / "shop"], open_domains=lambda _: domains, seconds=0)
    text = page(found)
    check(text)
    assert found.verdict.prediction == "alone"
    assert "One network for 4 domains" in found.verdict.sentence
    assert "The rules of the verdict" not in text
    assert "computed, not trained" in text


def test_several_columns_and_seeds(tmp_path: Path) -> None:
    domains = [domain("a"), domain("b", seed=1)]
    for seed in (0, 1):
        errors = {"a": 10.0 + seed, "b": 20.0}
        make_run(tmp_path / "deep" / f"seed-{seed}", domains, errors, seed=seed, images=500)
    make_run(tmp_path / "shared", domains, {"a": 8.0, "b": 18.0}, norm="shared", images=500)
    make_run(tmp_path / "alone", domains, {"a": 9.0, "b": 19.0}, sharing="none", images=500)
    found = gather(
        [tmp_path / "deep", tmp_path / "shared"],
        tmp_path / "alone",
        open_domains=lambda _: domains,
        seconds=0,
    )
    assert [column.name for column in found.columns] == ["deep", "shared"]
    assert found.evaluated.name == "shared"  # lower on validation
    assert found.columns[0].seeds == (0, 1)
    assert len(found.columns[0].decathlon) == 2
    text = page(found)
    check(text)
    assert "2 seeds: 10.00–11.00" in text
    assert "lowest validation error" in text
    assert "Evaluated: shared" in text


def test_frozen_heads_and_a_baseline_that_is_no_set_of_networks(tmp_path: Path) -> None:
    domains = [domain("a"), domain("b", seed=1)]
    errors = {"a": 10.0, "b": 20.0}
    make_run(tmp_path / "one", domains, errors, images=800)
    make_run(tmp_path / "still", domains, errors, images=800, extra={"frozen": True})
    make_run(tmp_path / "alone", domains, errors, sharing="none", images=800)

    def prediction(runs: list[str], base: str) -> str:
        paths = [tmp_path / name for name in runs]
        found = gather(paths, tmp_path / base, open_domains=lambda _: domains, seconds=0)
        check(page(found))
        return found.verdict.sentence

    assert prediction(["one", "still"], "alone").startswith("Frozen heads are enough")
    assert prediction(["one"], "alone").startswith("One network is enough")
    assert prediction(["one"], "still").startswith("As good as still on both domains")
    assert prediction(["alone"], "one").startswith("As good as one")


def test_someone_else_s_predictions_as_a_baseline(tmp_path: Path) -> None:
    domains = [domain("a"), domain("b", seed=1)]
    make_run(tmp_path / "one", domains, {"a": 50.0, "b": 50.0})
    lines = ["domain,image,label"]
    for one in domains:
        labels = one.test.label("classify")
        lines += [f"{one.name},{one.test.key(i)},{'abc'[labels[i]]}" for i in range(len(one.test))]
    (tmp_path / "theirs.csv").write_text("\n".join(lines) + "\n")
    found = gather(
        [tmp_path / "one"], tmp_path / "theirs.csv", open_domains=lambda _: domains, seconds=0
    )
    text = page(found)
    check(text)
    assert found.baseline is not None and found.baseline.name == "theirs.csv"
    assert found.baseline.scores["a", "classify"].estimate.value == 0
    assert found.verdict.sentence.startswith("Worse than theirs.csv")
    assert "predictions from elsewhere" in text


def test_what_cannot_be_measured_is_left_out_with_its_reason(tmp_path: Path) -> None:
    domains = [domain("a"), domain("b", seed=1)]
    make_run(tmp_path / "one", domains, {"a": 5.0, "b": 5.0})
    make_run(tmp_path / "half", domains, {"a": 5.0, "b": 5.0}, finished=False)

    def gone(_: Path) -> list[Domain]:
        raise Failed("the folder /home/anna is gone <b>")

    found = gather([tmp_path / "one"], open_domains=gone, seconds=0)
    text = page(found)
    check(text)
    assert "images: the folder /home/anna is gone &lt;b&gt;" in text
    assert found.latency is not None and found.similarity is None
    private = page(gather([tmp_path / "one"], open_domains=gone, images=False, seconds=0))
    assert "anna" not in private
    half = gather([tmp_path / "half"], open_domains=lambda _: domains, seconds=0)
    check(page(half))
    assert "not finished" in half.verdict.sentence
    assert "Validation error" in page(half)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: ([], None), "expected at least one run"),
        (lambda root: ([root / "one", root / "one"], None), "each run once"),
        (lambda root: ([root / "one"], root / "one"), "not compared with itself"),
        (lambda root: ([root / "none"], None), "not the folder of a run"),
        (lambda root: ([root / "one"], root / "sweep"), "one run, or the seeds of one"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, call: Callable[[Path], tuple[list[Path], Path | None]], message: str
) -> None:
    domains = [domain("a")]
    for name in ("one", "sweep/x/seed-0", "sweep/y/seed-0"):
        make_run(tmp_path / name, domains, {"a": 5.0}, model=False)
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    with pytest.raises(BadInput, match=message):
        gather(*call(tmp_path), open_domains=lambda _: domains, seconds=0)


def test_the_file_is_written_whole_and_only_as_html(tmp_path: Path) -> None:
    domains = [domain("a")]
    make_run(tmp_path / "one", domains, {"a": 5.0})
    for name in ("report.pdf", "report", "."):
        with pytest.raises(BadInput, match="one HTML file"):
            write_report([tmp_path / "one"], None, tmp_path / name, open_domains=lambda _: domains)
    out = tmp_path / "deep" / "report.html"
    path = write_report([tmp_path / "one"], None, out, open_domains=lambda _: domains, seconds=0)
    assert path == out
    check(out.read_text("utf-8"))


def test_how_many_images_would_tell() -> None:
    def needed(value: float, half: float, allowed: float, count: int) -> int | None:
        difference = Estimate(value, value - half, value + half)
        row = Compared("a", "classify", difference, difference, difference, allowed, "open")
        return images_needed(row, count)

    assert needed(0.0, 2.0, 1.0, 1000) == 4000  # half the interval, four times the images
    assert needed(0.5, 1.5, 1.0, 459) == 4200
    assert needed(1.0, 2.0, 1.0, 1000) is None  # on the margin none would
    assert needed(0.9, 2.0, 1.0, 1000) is None  # four hundred times as many
