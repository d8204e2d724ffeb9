"""`onetrunk export`: export a model to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onetrunk.cli.options import AsJson
from onetrunk.cli.output import print_json
from onetrunk.nn.saving import load
from onetrunk.serve.export import check_onnx_path, export

EXAMPLES = """# one domain as a plain folded network
onetrunk export runs/shop shop.onnx --domain catalogue
# all domains of one image size; the domain is an input
onetrunk export runs/shop all.onnx
"""


def command(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of onetrunk.save.")],
    out: Annotated[Path, typer.Argument(help="ONNX file to write.")],
    domain: Annotated[
        str | None,
        typer.Option(
            help="Export this domain only. Default: all, which must have the same image size."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export a model to ONNX."""
    check_onnx_path(out)
    model = load(run, domain)
    path = export(model, out, domain=domain)
    names = [domain] if domain is not None else list(model.domains)
    if as_json:
        print_json({"file": str(path), "bytes": path.stat().st_size, "domains": names})
        return
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB, {', '.join(names)}")
    print("It needs only onnxruntime, numpy and pillow; docs/onnx.md has a program.")
