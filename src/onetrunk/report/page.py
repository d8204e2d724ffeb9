"""Findings to one self-contained page: no script, no address outside, every name escaped."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

from onetrunk.eval.budget import scaled
from onetrunk.eval.table import number
from onetrunk.report.findings import Findings
from onetrunk.report.html import Html, el
from onetrunk.report.part_cost import cost_part
from onetrunk.report.part_inside import inside_part, pictures_part
from onetrunk.report.part_scores import scores_part
from onetrunk.report.part_summary import common, mean_error
from onetrunk.report.part_training import data_part, recipe_part, training_part
from onetrunk.report.words import section, signed, times

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
PARTS: tuple[tuple[str, str, Callable[[Findings], Html | None]], ...] = (
    ("scores", "Scores", scores_part),
    ("cost", "Size and speed", cost_part),
    ("pictures", "Predictions", pictures_part),
    ("inside", "Inside", inside_part),
    ("training", "Training", training_part),
    ("data", "Images", data_part),
    ("recipe", "Recipe", recipe_part),
)


def page(findings: Findings) -> str:
    """The whole file."""
    made = [(name, words, part(findings)) for name, words, part in PARTS]
    there = [(name, words, html) for name, words, html in made if html is not None]
    links = [el("a", words, attributes={"href": f"#{name}"}) for name, words, _ in there]
    body = el(
        "body",
        el(
            "header",
            _eyebrow(findings),
            el("h1", findings.verdict.sentence),
            [el("p.lead" if i == 0 else "p.note", t) for i, t in enumerate(_lead(findings))],
            _facts(findings),
            el("nav", links, attributes={"aria-label": "parts of this report"}),
        ),
        el("main", [html for _, _, html in there], _missing(findings)),
    )
    names = " and ".join(column.name for column in findings.columns[:3])
    head = el(
        "head",
        el("meta", attributes={"charset": "utf-8"}),
        el(
            "meta",
            attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"},
        ),
        el("meta", attributes={"http-equiv": "Content-Security-Policy", "content": POLICY}),
        el("meta", attributes={"name": "color-scheme", "content": "light dark"}),
        el("meta", attributes={"name": "generator", "content": f"onetrunk {findings.version}"}),
        el("link", attributes={"rel": "icon", "href": "data:,"}),
        el("title", f"{names}: one network or N?"),
        el("style", Html(style())),
    )
    return "<!doctype html>\n" + el("html", head, body, attributes={"lang": "en"}) + "\n"


def style() -> str:
    """The page's style sheet."""
    return (files("onetrunk.report") / "style.css").read_text("utf-8")


def _eyebrow(findings: Findings) -> Html:
    names = ", ".join(column.name for column in findings.columns)
    parts: list[Html | str] = [el("b", "onetrunk report"), f" · {names}"]
    if findings.baseline is not None:
        parts.append(f", against {findings.baseline.name}")
    parts.append(f" · {findings.made}")
    return el("p.eyebrow", parts)


def _lead(findings: Findings) -> list[str]:
    """What stands under the verdict."""
    evaluated, base = findings.evaluated, findings.baseline
    words = [f"Evaluated: {evaluated.name} ({evaluated.what})."]
    if len(findings.columns) > 1:
        words.append("Of the runs below it has the lowest validation error.")
    if base is not None:
        words.append(f"Against: {base.name} ({base.what}).")
    only = [d for d in findings.domains if d not in findings.verdict.readings]
    if base is not None and findings.verdict.readings and only:
        words.append(f"Not on both sides, so not evaluated: {', '.join(only)}.")
    return [" ".join(words), *findings.verdict.notes]


def _facts(findings: Findings) -> Html | None:
    """The few numbers that one remembers."""
    evaluated, base = findings.evaluated, findings.baseline
    facts: list[tuple[str, str, str]] = []
    cost = evaluated.cost
    other = base.cost if base else evaluated.separate_cost
    if cost is not None and other is not None and not evaluated.separate:
        whose = "the baseline" if base and not base.separate else "separate networks"
        size = f"{scaled(cost.bytes, 'B')} instead of {scaled(other.bytes, 'B')} of {whose}"
        facts.append(("Size", times(cost.bytes, other.bytes), size))
    sides = [evaluated, *([base] if base else [])]
    keys = common(sides)
    if keys:
        means = [mean_error(column, keys) for column in sides]
        said = f"over {len(keys)} domains" if len(keys) > 1 else "on its one domain"
        if base is not None:
            said = f"{number(means[1], '%')} % {said} by the baseline"
            gap = evaluated.mean_difference
            if gap is not None and gap.low is not None and gap.high is not None:
                said += f"; difference {signed(gap.low, '%')} to {signed(gap.high, '%')}"
        facts.append(("Mean test error", f"{number(means[0], '%')} %", said))
    if evaluated.decathlon and len(keys) > 1:
        mean = sum(evaluated.decathlon) / len(evaluated.decathlon)
        facts.append(("Decathlon score", f"{mean:,.0f}", f"the baseline has {250 * len(keys):,}"))
    elif evaluated.delta:
        mean = sum(evaluated.delta) / len(evaluated.delta)
        shown = f"{mean:+.1f} %".replace("-", "−")
        facts.append(("Δ over tasks", shown, "mean relative gain over the baseline"))
    mixed = [row for row in findings.latency.rows if not row.domain] if findings.latency else []
    if mixed and mixed[0].universal and mixed[0].separate:
        row = mixed[0]
        facts.append(
            (
                f"Mixed batch of {row.batch} images",
                f"{row.universal:.3g} ms",
                f"{row.separate:.3g} ms through separate networks",
            )
        )
    if not facts:
        return None
    return el("dl.facts", [el("div", el("dt", a), el("dd", b), el("dd", c)) for a, b, c in facts])


def _missing(findings: Findings) -> Html | None:
    """What was left out, and why."""
    lines = [el("li", f"{part}: {why}") for part, why in findings.missing.items()]
    if not findings.images:
        lines.append(el("li", "pictures and names of files: left out as asked"))
    if not lines:
        return None
    return section("missing", "Left out", el("ul.small", lines))
