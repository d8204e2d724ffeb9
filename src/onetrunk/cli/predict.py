"""`onetrunk predict`: predict with the model of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from onetrunk.cli.decathlon_server import write_withheld
from onetrunk.cli.map_files import Maps
from onetrunk.cli.prediction_rows import FORMATS, Rows
from onetrunk.data.files.paths import IMAGE_ENDINGS, regular
from onetrunk.data.pixels import U8, BadImage, Pixels
from onetrunk.errors import BadInput, Failed, printable
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track, say
from onetrunk.runs.open import Run
from onetrunk.train.device import choose_device

EXAMPLES = """onetrunk predict runs/shop photo.jpg --domain catalogue
onetrunk predict runs/shop photos/ --domain catalogue > predictions.csv
# the score of every class
onetrunk predict runs/shop photos/ --domain catalogue --format jsonl
# maps (classes, depth, normals) and overlays as images
onetrunk predict runs/rooms scenes/ --out maps/
# a submission for the Visual Decathlon's evaluation server
onetrunk predict runs/ten --decathlon results.zip
"""
CHUNK = 64  # images in memory at a time


def command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files or folders of images.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="Domain of the images; required if the run has several.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write predicted maps to.")] = None,
    form: Annotated[str, typer.Option("--format", help="Output format: csv or jsonl.")] = "csv",
    decathlon: Annotated[
        Path | None,
        typer.Option(
            help="Instead of images: predict the test images of the run's decathlon: domains and "
            "write a .json or .zip file for the evaluation server."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device: cpu, cuda, cuda:1 or mps.")] = None,
) -> None:
    """Predict classes, numbers or maps for images."""
    if decathlon is not None:
        given = (("images", images), ("--out", out), ("--format", form != "csv"))
        if others := [name for name, value in given if value]:
            raise BadInput("--decathlon takes no images or output options", got=", ".join(others))
        write_withheld(run, decathlon, domain, device)
        return
    if not images:
        raise BadInput("expected image files or folders of images", got="none")
    if form not in FORMATS:
        raise BadInput("unknown format", got=form, available=FORMATS)
    model, name = _model(Run(run), domain)
    card = model.domains[name]
    dense = [task for task in card.tasks if task.dense]
    if out is not None and not dense:
        raise BadInput(
            f"--out is for maps, but {name} has no task that predicts maps", got=str(out)
        )
    if out is None and dense:
        if len(dense) == len(card.tasks):
            raise BadInput(
                f"{name} predicts maps, which need a folder to be written to",
                got="no --out",
                try_="--out maps/",
            )
        say(f"maps are not written without --out: {', '.join(task.name for task in dense)}")
    files = list(_files(images))
    model.to(choose_device(device))
    rows, maps = Rows(card.tasks, form), None if out is None else Maps(out)
    bad = 0
    with Track("predicting", len(files)) as track:
        for part in _parts(model, name, len(files)):
            chosen = files[part]
            read = _read([path for path, _ in chosen], card.pixels)
            good = [i for i, image in enumerate(read) if not isinstance(image, str)]
            for i in sorted({*range(len(chosen))} - {*good}):
                say(printable(f"skipped {chosen[i][0]}: {read[i]}"))
            bad += len(chosen) - len(good)
            arrays = [image for image in read if not isinstance(image, str)]
            predictions = model.predict(arrays, domain=name) if arrays else []
            for i, array, prediction in zip(good, arrays, predictions, strict=True):
                path, short = chosen[i]
                written = {}
                if maps is not None:
                    found = {task: prediction[task.name]["map"] for task in dense}
                    written = maps.write(short, card.pixels.centre(array[None])[0], found)
                rows.write(str(path), name, prediction, written)
            track(len(chosen))
    wrote = f"; wrote {maps.count:,} maps into {out}" if maps is not None else ""
    if bad:
        raise Failed(
            f"{bad:,} of {len(files):,} images could not be read and were skipped (listed above); "
            f"{len(files) - bad:,} have predictions{wrote}",
            try_="repair or remove these files",
        )
    if maps is not None:
        named = next((f", colours: {t.name}.legend.png" for t in dense if t.classes), "")
        say(f"{len(files):,} images{wrote}; pictures: {out}/*.overlay.png{named}")
    elif form == "csv":
        say(f"{len(files):,} images; --format jsonl prints the score of every class")
    else:
        say(f"{len(files):,} images")


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
            names = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
            raise BadInput(f"no such image or folder: {path}", got=path.name, available=names)


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
