"""`ot.report`: finished runs as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.objects import Trust, trusting
from onetrunk.report.gather import gather
from onetrunk.report.page import page
from onetrunk.report.run_files import PathOrName
from onetrunk.store.atomic import write_atomic

SUFFIXES = (".html", ".htm")


def report(
    runs: PathOrName | Sequence[PathOrName],
    baseline: PathOrName | None = None,
    out: PathOrName = "report.html",
    images: bool = True,
    *,
    domains: Sequence[Domain] = (),
    trust: Trust = (),
) -> Path:
    """Write a self-contained page that compares runs with a baseline, and return its path.

    Args:
        runs: Folders of runs, one column each. The seeds of one recipe (`seed-0`, `seed-1`, …)
            share a column.
        baseline: The run of separate networks, a table of predictions, or `timm/NAME`.
        out: The HTML file.
        images: If False, the page contains no image and no file name.
        domains: Domains whose images were given in Python, which runs do not store.
        trust: Modules whose code the runs may name.
    """
    path = Path(out)
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        raise BadInput(
            "expected the name of an HTML file for the report",
            got=str(out),
            try_="--out report.html",
        )
    listed = [runs] if isinstance(runs, str | PathLike) else list(runs)
    with trusting(trust):
        write_atomic(path, page(gather(listed, baseline, images=images, domains=domains)))
    return path
