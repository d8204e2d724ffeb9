"""`onetrunk predict`: predict with the model of a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from onetrunk.cli.decathlon_server import write_withheld
from onetrunk.cli.map_files import Maps
from onetrunk.cli.options import DeviceName, FinishedRun
from onetrunk.cli.prediction_files import WRITERS, check_table, prediction_file
from onetrunk.cli.prediction_rows import FORMATS, CsvRows, JsonRows, PredictionRows
from onetrunk.data.files.paths import IMAGE_ENDINGS, regular
from onetrunk.data.pixels import U8, BadImage, Pixels
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed, printable
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track, say
from onetrunk.runs.open import Run
from onetrunk.train.device import choose_device

EXAMPLES = """onetrunk predict runs/shop photo.jpg --domain catalogue
# a table: .csv, .jsonl or .parquet
onetrunk predict runs/shop photos/ --domain catalogue --out predictions.csv
# the three most probable classes
onetrunk predict runs/shop photos/ --domain catalogue --out predictions.parquet --top 3
# to another program, with the score of every class
onetrunk predict runs/shop photos/ --domain catalogue --format jsonl
# maps (classes, depth, normals) and overlays as images, and a table of their files
onetrunk predict runs/rooms scenes/ --out maps/ --out maps.csv
# a submission for the Visual Decathlon's evaluation server
onetrunk predict runs/ten --decathlon results.zip
"""
CHUNK = 64  # images in memory at a time


def command(
    run: FinishedRun,
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files or folders of images.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="Domain of the images; required if the run has several.")
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            help="A .csv, .jsonl or .parquet file for the predictions, or a folder for maps; "
            "repeat it for both."
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Give the TOP classes or labels with the highest scores."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file of --out if it exists.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option("--format", help="Format on standard output: csv (default) or jsonl."),
    ] = None,
    decathlon: Annotated[
        Path | None,
        typer.Option(
            help="Instead of images: predict the test images of the run's decathlon: domains and "
            "write a .json or .zip file for the evaluation server."
        ),
    ] = None,
    device: DeviceName = None,
) -> None:
    """Predict classes, numbers or maps for images."""
    if decathlon is not None:
        given = (("images", images), ("--out", out), ("--format", form), ("--top", top))
        if others := [name for name, value in given if value]:
            raise BadInput("--decathlon takes no images or output options", got=", ".join(others))
        write_withheld(run, decathlon, domain, device)
        return
    if not images:
        raise BadInput("expected image files or folders of images", got="none")
    if form not in (None, *FORMATS):
        raise BadInput("unknown format", got=form, available=FORMATS)
    table, folder = _outputs(out or ())
    if table is not None:
        if form is not None:
            raise BadInput(
                "--format is for standard output; the ending of --out is the format of a file",
                got=f"--format {form} --out {table}",
            )
        check_table(table, force)
    model, name = _model(Run(run), domain)
    tasks = model.domains[name].tasks
    _check_maps(name, tasks, folder)
    files = list(_files(images))
    model.to(choose_device(device))
    maps = None if folder is None else Maps(folder)
    if table is not None:
        with prediction_file(table, tasks, top) as rows:
            bad = _predict(model, name, files, rows, maps)
    else:
        writer = JsonRows if form == "jsonl" else CsvRows
        bad = _predict(model, name, files, writer(sys.stdout, tasks, top), maps, skip=True)
    wrote = [] if table is None else [f"{table}"]
    if maps is not None:
        wrote.append(f"{maps.count:,} maps into {maps.folder}")
    made = f"; wrote {' and '.join(wrote)}" if wrote else ""
    good = len(files) - bad
    if bad and (table is None or not good):
        listed = "skipped (listed above)" if table is None else "listed in the column error"
        raise Failed(
            f"{bad:,} of {len(files):,} images could not be read and were {listed}; "
            f"{good:,} have predictions{made}",
            try_="repair or remove these files",
        )
    if bad:
        say(f"{bad:,} of {len(files):,} images could not be read; see the column error")
    if maps is not None:
        named = next(
            (f", colours: {t.name}.legend.png" for t in tasks if t.dense and t.classes), ""
        )
        made += f"; pictures: {maps.folder}/*.overlay.png{named}"
    elif table is None and form != "jsonl":
        made = "; --format jsonl prints the score of every class, --out writes a file"
    say(f"{len(files):,} images{made}")


def _outputs(given: Sequence[Path]) -> tuple[Path | None, Path | None]:
    """Return the table and the folder of maps in --out."""
    folders = [path for path in given if path.is_dir() or not path.suffix]
    tables = [path for path in given if path not in folders]
    for path in tables:
        if path.suffix.lower() not in WRITERS:
            raise BadInput(
                "expected a table or a folder for --out",
                got=str(path),
                available=WRITERS,
                try_="a name with one of these endings, or for maps one without a dot",
            )
    for path in folders:
        if path.exists() and not path.is_dir():
            raise BadInput("expected a folder for maps, or the name of a table", got=str(path))
    for several in (folders, tables):
        if len(several) > 1:
            raise BadInput(
                "expected at most one table and one folder for --out",
                got=", ".join(map(str, several)),
            )
    return next(iter(tables), None), next(iter(folders), None)


def _check_maps(name: str, tasks: Sequence[Task], folder: Path | None) -> None:
    """Refuse a folder if there are no maps to write, and no folder if there is nothing else."""
    dense = [task.name for task in tasks if task.dense]
    if folder is not None and not dense:
        raise BadInput(
            f"a folder is for maps, but {name} has no task that predicts maps",
            got=f"--out {folder}",
            try_="--out predictions.csv",
        )
    if folder is None and dense:
        if len(dense) == len(tasks):
            raise BadInput(
                f"{name} predicts maps, which need a folder to be written to",
                got="none",
                try_="--out maps/",
            )
        say(f"maps are not written without a folder, --out maps/: {', '.join(dense)}")


def _predict(
    model: Universal,
    name: str,
    files: Sequence[tuple[Path, PurePosixPath]],
    rows: PredictionRows,
    maps: Maps | None,
    skip: bool = False,
) -> int:
    """Write a row for each file, and return the number of files that could not be read.

    Args:
        skip: Whether unreadable files are named on standard error and have no row.
    """
    card = model.domains[name]
    dense = [task for task in card.tasks if task.dense]
    bad = 0
    with Track("predicting", len(files)) as track:
        for part in _parts(model, name, len(files)):
            chosen = files[part]
            read = _read([path for path, _ in chosen], card.pixels)
            arrays = [image for image in read if not isinstance(image, str)]
            predictions = iter(model.predict(arrays, domain=name) if arrays else ())
            for (path, short), image in zip(chosen, read, strict=True):
                if isinstance(image, str):
                    bad += 1
                    if skip:
                        say(printable(f"skipped {path}: {image}"))
                    else:
                        rows.write_error(str(path), name, image)
                    continue
                prediction = next(predictions)
                written = {}
                if maps is not None:
                    found = {task: prediction[task.name]["map"] for task in dense}
                    written = maps.write(short, card.pixels.centre(image[None])[0], found)
                rows.write(str(path), name, prediction, written)
            track(len(chosen))
    return bad


def _model(run: Run, domain: str | None) -> tuple[Universal, str]:
    """Return the model for a domain, and the name of the domain."""
    names = run.names
    if domain is None:
        if len(names) != 1:
            raise BadInput(
                "expected --domain, as the run has several domains",
                available=names,
                try_=f"--domain {next(iter(names), 'NAME')}",
            )
        (domain,) = names
    if domain not in names:
        raise BadInput("the run has no domain of this name", got=domain, available=names)
    return run.network(domain), domain


def _files(given: Sequence[Path]) -> Iterator[tuple[Path, PurePosixPath]]:
    """Yield the path of every image and its short name: in a folder, the path below it."""
    for path in given:
        if path.is_dir():
            found = [
                Path(folder, name)
                for folder, _, names in os.walk(path)
                for name in names
                if not name.startswith(".")
            ]
            images = sorted(p for p in found if p.suffix.lower() in IMAGE_ENDINGS)
            if not images:
                raise BadInput(f"the folder {path} has no images", got=f"{len(found)} other files")
            if len(images) < len(found):
                say(f"{path}: skipped {len(found) - len(images)} files that are not images")
            yield from ((p, PurePosixPath(p.relative_to(path).as_posix())) for p in images)
        elif path.exists():
            yield path, PurePosixPath(path.name)
        else:
            raise _no_image(path)


def _no_image(path: Path) -> BadInput:
    """Return the error for a missing file, with the images and folders beside it."""
    beside = sorted(path.parent.glob("[!.]*")) if path.parent.is_dir() else []
    names = [p.name for p in beside if p.suffix.lower() in IMAGE_ENDINGS]
    names += [p.name for p in beside if p.is_dir()]
    where = "" if path.parent == Path() else f" in {path.parent}"
    return BadInput(f"no such image or folder{where}", got=path.name, available=names)


def _parts(model: Universal, name: str, count: int) -> Iterator[slice]:
    """Yield the slices of files that form one batch."""
    step, norm = CHUNK, model.trunk.norm_method
    if norm.batch_statistics:  # predictions depend on the batch
        trained = model.domains[name].provenance.get("batch")
        step = max(trained, norm.min_images) if isinstance(trained, int) else CHUNK
    starts = list(range(0, count, step))
    if len(starts) > 1 and count - starts[-1] < norm.min_images:
        starts.pop()
    for place, start in enumerate(starts):
        yield slice(start, starts[place + 1] if place + 1 < len(starts) else count)


def _read(paths: Sequence[Path], pixels: Pixels) -> list[U8 | str]:
    """Read images at the size of the domain; an unreadable one gives the reason as text."""

    def one(path: Path) -> U8 | str:
        try:
            return pixels.read(regular(path))
        except BadImage as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, paths))
