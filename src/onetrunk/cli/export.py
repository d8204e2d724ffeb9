"""`onetrunk export`: a model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onetrunk.cli.output import print_json
from onetrunk.nn.saving import load
from onetrunk.serve.export import export

HELP = """Write a model as ONNX: one domain folded to a plain network, or all of one size.

[bold]Examples[/bold]

  onetrunk export runs/shop shop.onnx --domain catalogue

  onetrunk export runs/shop all.onnx               every domain; the domain is an input
"""


def export_onnx(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or of onetrunk.save.")],
    out: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    domain: Annotated[
        str | None, typer.Option(help="One domain; without it all, which must be of one size.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Write a model as ONNX."""
    model = load(run)
    path = export(model, out, domain=domain)
    names = [domain] if domain is not None else list(model.domains)
    if as_json:
        print_json({"file": str(path), "bytes": path.stat().st_size, "domains": names})
        return
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB, {', '.join(names)}")
    print("try: read it with onnxruntime, numpy and pillow alone, as docs/onnx.md shows")
