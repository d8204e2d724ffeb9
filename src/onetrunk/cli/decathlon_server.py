"""`onetrunk predict RUN --decathlon FILE`: a submission for the Visual Decathlon's server."""

from __future__ import annotations

from pathlib import Path

from onetrunk.cli.eval import chosen_domains
from onetrunk.data.sources.decathlon import Decathlon
from onetrunk.errors import BadInput
from onetrunk.eval.decathlon_server import check_ending, decathlon_results
from onetrunk.progress import say
from onetrunk.runs.open import Run
from onetrunk.store.places import check_file
from onetrunk.train.device import choose_device


def write_withheld(run: Path, out: Path, domain: str | None, device: str | None) -> None:
    """Predict the test images of the run's `decathlon:` domains and write the submission."""
    check_ending(out)
    check_file(out, "--decathlon")
    opened = Run(run)
    requested = chosen_domains(opened, None if domain is None else [domain])
    domains = [one for one in requested if isinstance(one.opened, Decathlon)]
    if not domains:
        raise BadInput(
            f"{run} has no domain of the Visual Decathlon",
            got=", ".join(one.name for one in requested),
            try_='source = "decathlon:ROOT/NAME" in a recipe',
        )
    results = decathlon_results(opened.networks, domains, choose_device(device))
    results.write(out)
    if results.missing:
        say(
            f"the server expects all ten domains; missing in this run: {', '.join(results.missing)}"
        )
    say(
        f"wrote {out}: {len(results):,} images of {', '.join(results.categories)}; try: "
        + (
            "submit it to the evaluation server"
            if out.suffix.lower() == ".zip"
            else f"--decathlon {out.with_suffix('.zip')} to write the archive for the server"
        )
    )
