"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FinishedRun = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
DeviceName = Annotated[str | None, typer.Option(help="Device: cpu, cuda, cuda:1 or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
