"""Changes in the scores of old domains in a run that starts from another (forgetting).

The change is the test headline of the new run (`init = RUN`) minus that of the old one, over the
same images, with paired bootstrap intervals. Domains whose images differ between the runs are left
out. For old domains that the new run does not have, `old_after` evaluates the old slots and heads
on the new trunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import evaluate
from onetrunk.eval.intervals import Difference, differences
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.table import Table, number, spaced
from onetrunk.nn.universal import Universal
from onetrunk.runs.open import Run
from onetrunk.train.initialize import load_shared


def score_changes(before: Path, after: Path) -> list[Difference]:
    """Return the change of each task that both runs have; none if a run has no outcomes."""
    if not (before.is_dir() and after.is_dir()):  # deleted since
        return []
    old, new = Run(before).outcomes, Run(after).outcomes
    if old is None or new is None:
        return []
    both = {
        name for name, digest in old.image_digests.items() if new.image_digests.get(name) == digest
    }
    ours, theirs = _only(new, both), _only(old, both)
    if not ours.tasks.keys() & theirs.tasks.keys():
        return []
    return differences(ours, theirs)


def old_after(
    run: Path,
    trained: Universal,
    domains: Sequence[Domain],
    *,
    device: torch.device | str | None = None,
) -> Table:
    """Evaluate domains of a run with their slots and heads on a trunk that started from it.

    Args:
        run: The folder of the old run; it is not changed.
        trained: The network with the new trunk, which includes shared statistics.
        domains: Domains of the old run.
        device: Where to evaluate; None: a GPU if there is one.

    Returns:
        The scores on test with the new trunk; those with the old one are the scores of the run.
    """
    old = load_shared(run)
    for key in ("arch", "norm"):
        ours, theirs = getattr(old.trunk, key), getattr(trained.trunk, key)
        if ours != theirs:
            raise BadInput(
                f"trunk.{key} of {run} is {ours!r}",
                got=theirs,
                try_="a network that was trained with init = this run",
            )
    old.trunk.load_shared(trained.trunk.shared())
    return evaluate(old, domains, device=device, notes=False)


def describe(change: Difference) -> str:
    """Describe a change in one line."""
    sign = "+" if change.value >= 0 else "−"
    size = f"{sign}{number(abs(change.value), change.unit)}"
    word = "better" if change.gain > 0 else "worse" if change.gain < 0 else "the same"
    noise = "" if change.clear or not change.gain else ", within the noise"
    return (
        f"{change.domain}/{change.task}: {change.metric} {number(change.theirs, change.unit)} → "
        f"{number(change.ours, change.unit)}{spaced(change.unit)} ({size}: {word}{noise})"
    )


def _only(outcomes: Outcomes, names: set[str]) -> Outcomes:
    """Return the outcomes of these domains."""
    parts = {key: part for key, part in outcomes.tasks.items() if key[0] in names}
    return Outcomes(outcomes.split, parts, {name: outcomes.image_digests[name] for name in names})
