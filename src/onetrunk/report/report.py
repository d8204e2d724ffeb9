"""`ot.report`: finished runs as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.objects import Trust, trusting
from onetrunk.progress import say
from onetrunk.report.floors import FLOOR_CHOICES, FloorChoice
from onetrunk.report.gather import gather
from onetrunk.report.page import GENERATOR, page
from onetrunk.report.run_files import PathOrName
from onetrunk.store.atomic import write_atomic
from onetrunk.store.places import check_file

NAME = "report.html"
SUFFIXES = (".html", ".htm")
HEAD = 4096  # bytes in which a page names its generator


def report(
    runs: PathOrName | Sequence[PathOrName],
    baseline: PathOrName | None = None,
    out: PathOrName | None = None,
    images: bool = True,
    floors: FloorChoice = "auto",
    *,
    chosen: int | PathOrName | None = None,
    notes: Sequence[str] = (),
    domains: Sequence[Domain] = (),
    trust: Trust = (),
) -> Path:
    """Write a self-contained page that compares runs with a baseline, and return its path.

    Args:
        runs: Folders of finished runs, one column each. The seeds of one recipe (`seed-0`,
            `seed-1`, …) share a column.
        baseline: The run of separate networks, a table of predictions, or `timm/NAME`.
        out: The HTML file; by default `report.html` in the folder of the first run. An earlier
            report is replaced, any other file is not.
        images: If False, the page contains no image and no file name.
        floors: Scores without training that are shown beside those of the networks: a constant
            prediction, the nearest neighbour on pixels and, for a pretrained trunk, a linear head
            on its features. "auto" leaves out the last one where it takes more than a minute a
            domain, "all" does not, "none" leaves out all. They are computed once for a run.
        chosen: The run that was chosen by validation scores: its index in `runs`, or its folder,
            which may be that of the baseline. It is marked, and the verdict is about it; by
            default the verdict is about the run with the lowest validation error.
        notes: Sentences on how it was chosen, which the page shows as they are.
        domains: Domains whose images were given in Python, which runs do not store.
        trust: Modules whose code the runs may name.
    """
    listed = [runs] if isinstance(runs, str | PathLike) else list(runs)
    if floors not in FLOOR_CHOICES:
        raise BadInput("unknown choice of floors", got=floors, available=FLOOR_CHOICES)
    if isinstance(notes, str):
        raise BadInput("notes: expected a list of sentences", got="one string", try_="[…]")
    if not listed:
        raise BadInput("expected at least one run", try_="onetrunk report RUN")
    path = Path(listed[0]) / NAME if out is None else Path(out)
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        raise BadInput(
            "expected the name of an HTML file for the report",
            got=str(out),
            try_="--out report.html",
        )
    if out is not None or Path(listed[0]).is_dir():  # a missing run is reported as such
        check_place(path)
    with trusting(trust):
        findings = gather(
            listed,
            baseline,
            images=images,
            floors=floors,
            domains=domains,
            chosen=chosen,
            notes=notes,
        )
        content = page(findings)
    if path.exists():
        check_place(path)  # again, because the work took time
        say(f"replacing the earlier report {path}")
    write_atomic(path, content)
    return path


def check_place(path: Path) -> None:
    """Raise BadInput if a report cannot be written to this path, or would replace another file."""
    check_file(path)
    if path.exists() and not is_report(path):
        raise BadInput(
            "expected a new file, or an earlier report of onetrunk, which would be replaced",
            got=f"{path}, which is something else",
            try_="another --out, or remove the file",
        )


def is_report(path: Path) -> bool:
    """Return whether a file is a report of onetrunk."""
    try:
        with path.open("rb") as file:
            return GENERATOR.encode() in file.read(HEAD)
    except OSError:
        return False
