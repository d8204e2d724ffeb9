"""`onetrunk data SOURCE --model RUN`: list images whose label is suspicious."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from onetrunk.cli.output import console, print_json, suggest
from onetrunk.data.contact_sheet import rows_sheet
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, Failed, printable
from onetrunk.nn.universal import Universal
from onetrunk.runs.open import Run
from onetrunk.store.atomic import write_atomic
from onetrunk.store.run_folder import shell
from onetrunk.train.suspicious_labels import SuspiciousLabel, suspicious_labels

COLUMNS = (
    "path",
    "split",
    "task",
    "label",
    "suggested",
    "confidence",
    "label_confidence",
    "margin",
)


def check_out(path: Path | None) -> None:
    """Raise BadInput if a path is not that of a CSV file."""
    if path is not None and (path.suffix.lower() != ".csv" or path.is_dir()):
        raise BadInput("expected the path of a CSV file", got=str(path), try_="--out suspects.csv")


def domain_to_check(
    folder: Path, source: str | None, name: str | None, settings: dict[str, Any]
) -> tuple[Universal, Domain, str]:
    """Return the network, the images to check, and the domain of the network to pass them through.

    Args:
        folder: The folder of the run.
        source: Where the images are; None: those of the run's domain.
        name: The domain of the run; None: that of the same source, or the only one.
        settings: Settings of the domain that the user gave.
    """
    run = Run(folder)
    known = {} if run.state == "model" else run.readable_domains
    if name is None:
        same = [each for each, domain in known.items() if domain.source == source]
        candidates = same if len(same) == 1 else run.names
        if len(candidates) != 1:
            raise BadInput(
                "expected the domain of the run whose layers the images are passed through",
                got="no --domain",
                available=run.names,
                try_=f"--domain {run.names[0]}" if run.names else None,
            )
        (name,) = candidates
    if name not in run.names:
        raise BadInput("the run has no domain of this name", got=name, available=run.names)
    network = run.network(name)
    if name in known and source in (None, known[name].source) and not settings:
        return network, known[name], name
    if source is None:
        raise BadInput(
            f"expected a SOURCE: the images of {name} are not known, or other settings were given",
            try_=f"onetrunk data SOURCE --model {shell(folder)} --domain {name}",
        )
    pixels = network.domains[name].pixels  # the same, so that the decoded images are cached
    shape = {"size": pixels.size, "fit": pixels.fit, "margin": pixels.margin, "fill": pixels.fill}
    return network, Domain(name, source, **{**shape, **settings}), name


def show_suspicious(
    network: Universal,
    domain: Domain,
    through: str,
    *,
    folder: Path,
    top: int,
    as_json: bool,
    out: Path | None,
    sheet: Path | None,
) -> None:
    """Find suspicious labels, and print and write them."""
    found = suspicious_labels(network, domain, through=through)
    if as_json:
        print_json(
            {
                "source": str(domain.source),
                "model": str(folder),
                "domain": through,
                "images": sum(len(domain.good(split)) for split in ("train", "val", "test")),
                "suspicious": [{key: asdict(each)[key] for key in COLUMNS} for each in found],
            }
        )
    else:
        _show(found, domain, top)
    to = sys.stderr if as_json else sys.stdout
    if out is not None:
        _write_csv(found, out)
        print(f"wrote {out}", file=to)
    if sheet is not None and found:
        rows_sheet(domain, sheet, _sheet_rows(found))
        print(f"wrote {sheet}", file=to)
    if not as_json and found and out is None:
        source = "" if not isinstance(domain.source, str) else f" {shell(domain.source)}"
        suggest(
            f"onetrunk data{source} --model {shell(folder)} --domain {through} --out suspects.csv "
            "--sheet suspects.png"
        )


def _show(found: Sequence[SuspiciousLabel], domain: Domain, top: int) -> None:
    images = sum(len(domain.good(split)) for split in ("train", "val", "test"))
    if not found:
        print(f"no suspicious labels among {images:,} images")
        return
    title = f"{len(found):,} of {images:,} labels are suspicious"
    title += f"; the first {top:,}:" if len(found) > top else ":"
    grid = Table(title=title, title_justify="left")
    tasks = {each.task for each in found}
    names = ["image", "split", *(["task"] if len(tasks) > 1 else []), "label", "suggested"]
    for column in names:
        grid.add_column(column, overflow="fold")
    grid.add_column("confidence", justify="right")
    for each in found[:top]:
        cells = [each.path, each.split, *([each.task] if len(tasks) > 1 else [])]
        cells += [each.label, each.suggested]
        grid.add_row(*(escape(printable(c)) for c in cells), f"{100 * each.confidence:.0f} %")
    console().print(grid)


def _sheet_rows(found: Sequence[SuspiciousLabel]) -> list[tuple[str, list[int]]]:
    """Return a row of images for each pair of a label and a suggestion, the most frequent first."""
    pairs = Counter((each.label, each.suggested) for each in found)
    return [
        (
            f"{label} > {suggested} ({count})",
            [each.row for each in found if (each.label, each.suggested) == (label, suggested)],
        )
        for (label, suggested), count in pairs.most_common()
    ]


def _write_csv(found: Sequence[SuspiciousLabel], path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for each in found:
        values = {key: asdict(each)[key] for key in COLUMNS}
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in values.items()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise Failed(
            f"cannot write {path}", got=error.strerror or str(error), try_="another folder"
        ) from None
