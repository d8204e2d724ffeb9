"""The page's second part: what one network costs beside the separate ones, and how fast it is."""

from __future__ import annotations

from onetrunk.eval.budget import Cost, scaled
from onetrunk.eval.latency import Timed
from onetrunk.report.findings import Findings
from onetrunk.report.html import Html, el
from onetrunk.report.words import (
    figure,
    heads,
    milliseconds,
    row_head,
    scroll,
    section,
    times,
    title,
)


def cost_part(findings: Findings) -> Html | None:
    """Size, operations and latency; None where no model could be read."""
    if findings.evaluated.cost is None:
        return None
    return section(
        "cost",
        "Size and speed",
        _totals(findings),
        _by_domain(findings),
        _latency(findings),
    )


def _totals(findings: Findings) -> Html:
    base = findings.baseline.cost if findings.baseline else None
    rows = []
    for column in findings.columns:
        cost = column.cost
        if cost is not None:
            other = base or (None if column.separate else column.separate_cost)
            rows.append(_total(title(column, findings), column.what, cost, other))
    said = "The ratio is to the separate networks of the baseline run."
    if findings.baseline is not None and base is not None:
        column = findings.baseline
        rows.append(_total(title(column, findings), column.what, base, None))
        if not column.separate:
            said = "The ratio is to the baseline."
    else:
        alone = findings.evaluated.separate_cost
        count = sum(len(budget.domains) for budget in findings.evaluated.budgets.values())
        if alone is not None and not findings.evaluated.separate:
            words = "the same trunk once for each domain; computed, not trained"
            rows.append(_total(f"{count} separate networks", words, alone, None))
            said = "The ratio is to separate networks of the same trunk."
        else:
            said = "Each domain has a network of its own."
    top = el("tr", heads("", ">parameters", ">on disk", ">FLOPs, one image of each"))
    table = el("table.full", el("thead", top), el("tbody", rows))
    caption = (
        f"{said} On disk: the tensors' bytes. FLOPs: two per multiply-add, summed over one image "
        "of each domain; a folded network takes no more than a separate one."
    )
    return figure(scroll(table, "size"), caption, "figure.whole")


def _total(name: str, what: str, cost: Cost, other: Cost | None) -> Html:
    cells = [
        _ratio(scaled(cost.parameters), cost.parameters, other.parameters if other else None),
        _ratio(scaled(cost.bytes, "B"), cost.bytes, other.bytes if other else None),
        _ratio(scaled(cost.flops), cost.flops, other.flops if other else None),
    ]
    head = el("th", name, el("small.wrap", what), attributes={"scope": "row"})
    return el("tr", head, cells)


def _ratio(shown: str, one: float | None, other: float | None) -> Html:
    """A figure, under it how many times the other it is."""
    small = el("small", times(one, other)) if one is not None and other else None
    return el("td.num", shown, small)


def _by_domain(findings: Findings) -> Html | None:
    """What each domain adds."""
    if findings.evaluated.separate:
        return None
    budget = next(iter(findings.evaluated.budgets.values()))
    rows = [
        el(
            "tr",
            row_head(domain.name),
            el("td.num", "×".join(map(str, domain.size))),
            el("td.num", scaled(domain.own.parameters)),
            el("td.num", scaled(domain.own.bytes, "B")),
            el("td.num", f"{100 * domain.own.bytes / max(domain.alone.bytes, 1):.1f} %"),
            el("td.num", scaled(domain.own.flops)),
            el("td.num", scaled(domain.alone.flops)),
        )
        for domain in budget.domains
    ]
    names = (">own parameters", ">pack", ">of a separate network", ">FLOPs", ">FLOPs alone")
    top = el("tr", heads("domain", ">image", *names))
    shared = el(
        "tr",
        row_head("shared by all"),
        el("td"),
        el("td.num", scaled(budget.shared.parameters)),
        el("td.num", scaled(budget.shared.bytes, "B")),
        [el("td")] * 3,
    )
    table = el("table.full", el("thead", top), el("tbody", rows, shared))
    return el(
        "div",
        el("h3", "What one more domain costs"),
        scroll(table, "what each domain adds"),
    )


def _latency(findings: Findings) -> Html | None:
    found = findings.latency
    if found is None:
        return None
    names = (">batch", ">one network", ">folded for the domain", ">separate network")
    top = el("tr", heads("domain", *names))
    rows, before = [], ""
    for row in found.rows:
        name = row_head(row.domain or "all domains mixed") if row.domain != before else el("td")
        before = row.domain
        rows.append((row.domain, el("tr", name, _timed(row))))
    body = el("tbody", [html for domain, html in rows if domain])
    foot = el("tfoot", [html for domain, html in rows if not domain])
    table = el("table.full", el("thead", top), body, foot if len(foot) > 15 else None)
    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    whose = "the baseline run's, folded" if found.trained else "this network's folded copies"
    caption = (
        f"Milliseconds, medians of runs that take turns, measured for this report on "
        f"{findings.machine} ({found.device}, {threads}); under each how many times the "
        "separate network it takes. One network: as it is, any domain at any time. Folded: its "
        "plain copy for one domain. Mixed: one batch of all domains in one pass, against "
        f"{whose}, one after another."
    )
    if found.busy:
        caption += " The machine was busy with other work meanwhile: all times are too long."
    return el(
        "div",
        el("h3", "Latency"),
        figure(scroll(table, "latency in milliseconds"), caption, "figure.whole"),
    )


def _timed(row: Timed) -> list[Html]:
    shown = [milliseconds(taken) for taken in (row.universal, row.folded, row.separate)]
    return [
        el("td.num", str(row.batch)),
        _ratio(shown[0], row.universal, row.separate),
        _ratio(shown[1], row.folded, row.separate),
        el("td.num", shown[2]),
    ]
