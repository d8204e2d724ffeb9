"""The report itself: measured, drawn, written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onetrunk.errors import BadInput
from onetrunk.report.gather import TIMED, MakeLoss, OpenDomains, gather
from onetrunk.report.page import page
from onetrunk.report.runs import PathOrRun
from onetrunk.store.atomic import write_atomic

SUFFIXES = (".html", ".htm")


def write_report(
    runs: Sequence[PathOrRun],
    baseline: PathOrRun | None,
    out: Path,
    *,
    open_domains: OpenDomains,
    make_loss: MakeLoss | None = None,
    images: bool = True,
    seconds: float = TIMED,
) -> Path:
    """Measure, draw, and write one file."""
    if out.suffix.lower() not in SUFFIXES or out.is_dir():
        raise BadInput("a report is one HTML file", got=str(out), try_="--out report.html")
    findings = gather(
        runs,
        baseline,
        open_domains=open_domains,
        make_loss=make_loss,
        images=images,
        seconds=seconds,
    )
    write_atomic(out, page(findings))
    return out
