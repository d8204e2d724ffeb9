"""`onetrunk predict`: what a run's model says of images."""

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
from onetrunk.data.pixels import U8, BadImage, Pixels
from onetrunk.data.sources.common import IMAGE_ENDINGS, regular
from onetrunk.errors import BadInput, Failed, printable
from onetrunk.nn.predict import FEWEST
from onetrunk.nn.saving import load, models_of
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track, say
from onetrunk.train.device import choose_device

HELP = """Say what a run's model sees in images: classes with scores, numbers, maps.

[bold]Examples[/bold]

  onetrunk predict runs/shop photo.jpg --domain catalogue

  onetrunk predict runs/shop new-photos/ --domain catalogue > answers.csv

  onetrunk predict runs/shop new-photos/ --domain catalogue --format jsonl   every class's score

  onetrunk predict runs/rooms scenes/ --out maps/           maps, and pictures of them

  onetrunk predict runs/ten --decathlon results.zip         the Visual Decathlon's withheld test
"""
CHUNK = 64  # images in memory at a time


def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Images, or folders of images.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="Which domain they are of; needed where there are several.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder that maps go to.")] = None,
    form: Annotated[str, typer.Option("--format", help="csv or jsonl.")] = "csv",
    decathlon: Annotated[
        Path | None,
        typer.Option(
            help="Instead of images: the test of the run's decathlon: domains, into a .json or "
            ".zip for the evaluation server."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
) -> None:
    """Say what a run's model sees in images."""
    if decathlon is not None:
        given = (("images", images), ("--out", out), ("--format", form != "csv"))
        if others := [name for name, value in given if value]:
            raise BadInput("--decathlon predicts the run's own test", got=", ".join(others))
        write_withheld(run, decathlon, domain, device)
        return
    if not images:
        raise BadInput("expected images, or folders of images", got="none")
    if form not in FORMATS:
        raise BadInput("unknown format", got=form, available=FORMATS)
    model, name = _model(run, domain)
    card = model.domains[name]
    dense = [task for task in card.tasks if task.dense]
    if out is not None and not dense:
        raise BadInput(f"--out is for maps, and {name} has no task that gives one", got=str(out))
    if out is None and dense:
        if len(dense) == len(card.tasks):
            raise BadInput(f"{name} gives maps: they need a folder", got="none", try_="--out maps/")
        say(f"without --out no maps are written ({', '.join(task.name for task in dense)})")
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
            f"{bad:,} of {len(files):,} images cannot be read and were skipped, each named above; "
            f"{len(files) - bad:,} have an answer{wrote}; try: mend or remove them"
        )
    if maps is not None:
        named = next((f"; {t.name}.legend.png names colours" for t in dense if t.classes), "")
        say(f"{len(files):,} images{wrote}; try: look at {out}/*.overlay.png{named}")
    else:
        say(f"{len(files):,} images; try: --format jsonl has every score")


def _model(run: Path, domain: str | None) -> tuple[Universal, str]:
    """The model that answers for a domain, and which domain that is."""
    if domain is None:
        models = models_of(run)
        if len(models) != 1:
            raise BadInput(
                "the run has several domains: say which one the images are of",
                available=models,
                try_=f"--domain {next(iter(models), 'NAME')}",
            )
        name, model = next(iter(models.items()))
        return model, name
    model = load(run, domain)
    if domain not in model.domains:
        raise BadInput("the run has no such domain", got=domain, available=model.domains)
    return model, domain


def _files(given: Sequence[Path]) -> Iterator[tuple[Path, PurePosixPath]]:
    """Every image with its name for people: in a folder, the path below it."""
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
                raise BadInput(f"no image in the folder {path}", got=f"{len(found)} other files")
            if len(images) < len(found):
                say(f"{path}: passed over {len(found) - len(images)} files that are no images")
            yield from ((p, PurePosixPath(p.relative_to(path).as_posix())) for p in images)
        elif path.exists():
            yield path, PurePosixPath(path.name)
        else:
            there = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
            raise BadInput(f"no such image or folder: {path}", got=path.name, available=there)


def _parts(model: Universal, name: str, count: int) -> Iterator[slice]:
    """Which files go through the model together."""
    step = CHUNK
    if model.trunk.norm == "shared-batch":  # each image is normalised by those beside it
        known = model.domains[name].provenance.get("batch")
        step = max(known, FEWEST) if isinstance(known, int) else CHUNK
    starts = list(range(0, count, step))
    if len(starts) > 1 and count - starts[-1] < FEWEST:
        starts.pop()
    for place, start in enumerate(starts):
        yield slice(start, starts[place + 1] if place + 1 < len(starts) else count)


def _read(paths: Sequence[Path], pixels: Pixels) -> list[U8 | str]:
    """Images as the domain sees them, or why there is none."""

    def one(path: Path) -> U8 | str:
        try:
            return pixels.read(regular(path))
        except BadImage as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, paths))
