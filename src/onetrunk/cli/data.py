"""`onetrunk data`: inspect a source of images before training."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from onetrunk.cli.cache import list_cache, purge_cache
from onetrunk.cli.duplicates import show_duplicates
from onetrunk.cli.options import AsJson
from onetrunk.cli.output import console, counted, print_json, suggest
from onetrunk.config.resolve import default_size, size_reason
from onetrunk.data.cache import cache_home
from onetrunk.data.contact_sheet import check_path, contact_sheet
from onetrunk.data.domain import Domain
from onetrunk.data.inspect import Inspection, inspect
from onetrunk.data.pixels import FITS, Fit
from onetrunk.data.sources.pocket import cards
from onetrunk.display import plural
from onetrunk.errors import BadInput, OnetrunkError, printable, shorten
from onetrunk.nn.auto_trunk import device_kind

NAME = "data"  # of the domain that is inspected
NUMBER = re.compile(r"-?[0-9]{1,9}")  # the range is checked for all ways to give a size
SHOWN = 8  # files listed on the terminal; --json lists all

EXAMPLES = """# list the embedded domains
onetrunk data
# inspect one and draw a contact sheet
onetrunk data pocket:digits --sheet digits.png
# your own images, a folder for each class
onetrunk data folder:photos
# duplicates: what would be grouped and left out
onetrunk data folder:photos --fix-duplicates
# labels that the features of a trained run contradict
onetrunk data folder:photos --model runs/shop --domain catalogue
# a table with two label columns; images of one item stay in one split
onetrunk data table:shop.csv --task category=classify \\
    --task price=regress --group item_id
# the cache of decoded images: list it, and delete what was not used lately
onetrunk data --cache
onetrunk data --purge --older-than 30d
onetrunk data folder:photos --purge
"""


def command(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A source such as folder:PATH; without one, list the embedded domains."
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Image size for training: 64, or HEIGHTxWIDTH.")
    ] = None,
    fit: Annotated[
        str | None, typer.Option(help="How images are resized: squash (default), pad or crop.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task, NAME=KIND or NAME=KIND:COLUMN; repeatable.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Column with the image path.")] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Column, or pattern on the path, of the groups that stay in one split."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Column with the split.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Write a contact sheet to this PNG file.")
    ] = None,
    fix_duplicates: Annotated[
        bool,
        typer.Option(
            "--fix-duplicates",
            help="Show which images the settings for duplicates would group and leave out, and the "
            "lines for a recipe. No file is changed.",
        ),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of a run: list images whose label its features contradict."),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(
            help="With --model: the run's domain whose layers the images pass; without SOURCE, "
            "also the images to check."
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="With --model: number of images to print; files have all.")
    ] = 20,
    out: Annotated[
        Path | None,
        typer.Option(help="With --model: write all suspicious labels to this CSV file."),
    ] = None,
    as_json: AsJson = False,
    cache: Annotated[
        bool, typer.Option("--cache", help="List the cache of decoded images.")
    ] = False,
    purge: Annotated[
        bool,
        typer.Option(
            "--purge", help="Delete decoded images: of SOURCE, --older-than an age, or --all."
        ),
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(help="With --purge: delete what was not used for this long, such as 30d."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="With --purge: delete the whole cache.")
    ] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="With --purge: list what would be deleted.")
    ] = False,
) -> None:
    """Inspect a source of images."""
    if sheet is not None:
        check_path(sheet)
    _check_options(fix_duplicates, model, domain, out, sheet)
    if not purge and (older_than or everything or dry):
        raise BadInput("--older-than, --all and --dry-run need --purge", got="no --purge")
    if purge:
        purge_cache(source, older_than, everything, dry, as_json)
        return
    if cache:
        list_cache(as_json)
        return
    settings: dict[str, Any] = {
        "tasks": _tasks(task),
        "size": _size(size),
        "fit": _fit(fit) if fit is not None else None,
        "image": image,
        "group": group,
        "split": split,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    if model is not None:
        from onetrunk.cli.suspicious_labels import check_out, domain_to_check, show_suspicious

        check_out(out)
        network, images, through = domain_to_check(model, source, domain, given)
        show_suspicious(
            network, images, through, folder=model, top=top, as_json=as_json, out=out, sheet=sheet
        )
        return
    if source is None:
        if fix_duplicates:
            raise BadInput(
                "--fix-duplicates expects a SOURCE",
                got="none",
                try_="onetrunk data folder:photos --fix-duplicates",
            )
        _list_embedded(as_json)
        return
    reason = ""
    with _without_name():
        inspected = Domain(NAME, source, **given)
        if size is None and (chosen := default_size(inspected, kind := device_kind())):
            inspected = Domain(NAME, source, **given, size=chosen[0])
            reason = size_reason(kind)
        if fix_duplicates:
            show_duplicates(inspected, as_json)
            return
        found = inspect(inspected)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found, reason)
    if found.refused:
        lines = found.refused.replace(f"domains.{NAME}.", "domains.NAME.").split("\n")
        raise BadInput.several([BadInput(line) for line in lines])
    if sheet is not None:
        contact_sheet(inspected, sheet)
        print(f"wrote {sheet}", file=sys.stderr if as_json else sys.stdout)


@contextmanager
def _without_name() -> Iterator[None]:
    """Leave the name of the domain out of errors, as the user has given none."""
    try:
        yield
    except OnetrunkError as error:
        plain = [each.without_name(NAME) for each in error.errors]
        for each in plain:
            each.place = each.place.removeprefix("source")  # an argument, not a key
        raise type(error).several(plain) from None


def _check_options(
    fix_duplicates: bool,
    model: Path | None,
    domain: str | None,
    out: Path | None,
    sheet: Path | None,
) -> None:
    """Raise BadInput for options that belong to another form of the command."""
    if model is None and (domain is not None or out is not None):
        raise BadInput(
            "--domain and --out belong to --model",
            got=f"--domain {domain}" if domain is not None else f"--out {out}",
            try_="--model RUN",
        )
    if fix_duplicates and (model is not None or sheet is not None):
        raise BadInput(
            "--fix-duplicates takes neither --model nor --sheet",
            got="--model" if model is not None else "--sheet",
        )


def _tasks(given: list[str] | None) -> dict[str, dict[str, str]] | None:
    if not given:
        return None
    tasks: dict[str, dict[str, str]] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        if not equals:
            raise BadInput("--task expects NAME=KIND or NAME=KIND:COLUMN", got=text)
        if name in tasks:
            raise BadInput("--task names a task twice", got=name)
        kind, colon, column = rest.partition(":")
        tasks[name] = {"kind": kind, **({"column": column} if colon else {})}
    return tasks


def _size(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(NUMBER.fullmatch(part) for part in parts):
        raise BadInput("--size expects one number or HEIGHTxWIDTH", got=text)
    return int(text) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def _fit(text: str) -> Fit:
    for fit in FITS:
        if fit == text:
            return fit
    raise BadInput("unknown fit", got=text, available=FITS)


def _list_embedded(as_json: bool) -> None:
    kept = ("title", "size", "classes", "package", "licence", "counterpart")
    if as_json:
        found = {
            name: {key: card[key] for key in kept}
            | {"splits": {s: part["count"] for s, part in card["splits"].items()}}
            for name, card in cards().items()
        }
        print_json(found)
        return
    table = Table(title="embedded domains", title_justify="left")
    for column in ("source", "description", "pixels", "classes", "train", "val", "test"):
        table.add_column(column, justify="left" if column in ("source", "description") else "right")
    for name, card in cards().items():
        counts = [f"{card['splits'][s]['count']:,}" for s in ("train", "val", "test")]
        height, width = card["size"]
        shape = f"{height}x{width}"
        table.add_row(f"pocket:{name}", card["title"], shape, str(len(card["classes"])), *counts)
    console().print(table)
    suggest("onetrunk data pocket:digits --sheet digits.png")


def _show(found: Inspection, reason: str) -> None:
    paper = console()
    table = Table(
        title=escape(printable(found.source)), title_justify="left", show_header=False, box=None
    )
    table.add_column(style="bold", no_wrap=True)
    table.add_column()

    def row(name: str, value: object) -> None:
        table.add_row(name, escape(printable(str(value))))

    counts = ", ".join(f"{split} {n:,}" for split, n in found.splits.items())
    row("images", f"{counts} ({found.how})")
    for labels in found.tasks:
        row(labels.task, _describe(labels))
        for split, names in labels.missing.items():
            if names:
                row("", f"missing in {split}: {len(names)}: {shorten(names, 4)}")
        if any(labels.unlabelled.values()):
            row("", f"not labelled: {counted(labels.unlabelled)}")
    if found.sizes["height"]:
        (h0, h1, h2), (w0, w1, w2) = found.sizes["height"], found.sizes["width"]
        sizes = f"{h0}x{w0}"
        if (h0, w0) != (h2, w2):
            sizes = f"height {h0} to {h2} (median {h1}), width {w0} to {w2} (median {w1})"
        why = f" ({reason}; --size sets it)" if reason else ""
        row("pixels", f"{sizes}; trained at {found.trained_at[0]}x{found.trained_at[1]}{why}")
    row("mean", " ".join(f"{v:.3f}" for v in found.mean))
    row("std", " ".join(f"{v:.3f}" for v in found.std))
    for file, why in list(found.unreadable.items())[:SHOWN]:
        row("unreadable", f"{file}: {why}")
    if len(found.unreadable) > SHOWN:
        row("", f"… {len(found.unreadable)} unreadable files in total; --json lists them")
    for problem, files in found.suspicious.items():
        row("suspicious", f"{len(files):,} {problem}: {shorten(files, 4)}")
    for name, pairs in (
        ("same content in two splits", found.exact),
        ("near-duplicates in two splits", found.near),
        ("same content, two labels", found.conflicts),
    ):
        if pairs:
            row(
                "duplicates", f"{len(pairs):,} {name}: {shorten([' = '.join(p) for p in pairs], 3)}"
            )
    if found.exact or found.near or found.conflicts:
        row("", "--fix-duplicates shows what can be done")
    if not found.exact and not found.near:
        row("duplicates", "none across splits")
    for warning in found.warnings:
        row("note", warning)
    row("training", _verdict(found))
    kind = "decoded images" if found.cache["pixels"] else "image records"
    row("cache", f"{found.cache['bytes'] / 1e6:.1f} MB of {kind} in {cache_home()}")
    paper.print(table)


def _verdict(found: Inspection) -> str:
    """Return whether a training would start, and why not."""
    if found.refused:
        return "would not start; see the error below"
    skipped = len(found.unreadable)
    left_out = f", without {plural(skipped, 'unreadable file')}" if skipped else ""
    return f"would start{left_out}"


def _describe(labels: Any) -> str:
    text = str(labels.kind) + (f" in {labels.unit}" if labels.unit else "")
    if labels.classes:
        text += f", {plural(len(labels.classes), 'class', 'classes')}"
    extremes = labels.extremes()
    if extremes and len(labels.classes) > 1:
        (most, n), (least, m) = extremes
        text += f"; largest {most} ({n:,}), smallest {least} ({m:,})"
    elif labels.classes:
        text += f": {shorten(labels.classes, 4)}"
    if "train" in labels.numbers:
        low, mean, high = labels.numbers["train"]
        text += f"; {low:g} to {high:g}, mean {mean:.4g}"
    return text
