"""`onetrunk predict RUN --decathlon FILE`: results for the server of the Visual Decathlon."""

from __future__ import annotations

from pathlib import Path

from onetrunk.cli.eval import chosen_domains
from onetrunk.data.sources.decathlon import Decathlon
from onetrunk.errors import BadInput
from onetrunk.eval.decathlon_server import check_ending, decathlon_results
from onetrunk.nn.saving import models_of
from onetrunk.progress import say
from onetrunk.train.device import choose_device


def write_withheld(run: Path, out: Path, domain: str | None, device: str | None) -> None:
    """The class of every test image of the run's `decathlon:` domains, or of one, into a file."""
    check_ending(out)
    models = models_of(run)
    asked = chosen_domains(run, list(models), None if domain is None else [domain])
    domains = [one for one in asked if isinstance(one.opened, Decathlon)]
    if not domains:
        raise BadInput(
            f"no domain of {run} is of the Visual Decathlon",
            got=", ".join(one.name for one in asked),
            try_='source = "decathlon:ROOT/NAME" in a recipe',
        )
    results = decathlon_results(models, domains, choose_device(device))
    results.write(out)
    if results.lacking:
        say(f"the server wants all ten domains; not in this run: {', '.join(results.lacking)}")
    say(
        f"wrote {out}: {len(results):,} images of {', '.join(results.categories)}; try: "
        + (
            "send it to the evaluation server"
            if out.suffix.lower() == ".zip"
            else f"--decathlon {out.with_suffix('.zip')} packs it as the server takes it"
        )
    )
