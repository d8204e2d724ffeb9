"""Forgetting: what domains lose when a run that starts from another moves the trunk (`init = RUN`).

The test headlines of the new run minus those of the old one, over the same images, with paired
bootstrap intervals; domains whose images are not the same in both are left out. Old domains that
the new run does not have are evaluated behind its trunk by what the old run has for them.
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
from onetrunk.runs.finish import OUTCOMES
from onetrunk.train.initialize import load_shared


def forgotten(before: Path, after: Path) -> list[Difference]:
    """Task by task of the domains that both runs have; none where either has no outcomes."""
    if not all((run / OUTCOMES).is_file() for run in (before, after)):
        return []
    old, new = (Outcomes.open(run / OUTCOMES) for run in (before, after))
    both = {
        name for name in old.image_digests if new.image_digests.get(name) == old.image_digests[name]
    }
    left, right = _only(new, both), _only(old, both)
    if not left.tasks.keys() & right.tasks.keys():
        return []
    return differences(left, right)


def old_after(
    run: Path,
    learned: Universal,
    domains: Sequence[Domain],
    *,
    device: torch.device | str | None = None,
) -> Table:
    """The run's own domains on test, their slots and heads as the run has them, all that is shared
    (statistics, too, where the norm shares them) from a network that started from it.

    What they were is in the run's scores; neither the run nor the network is touched.
    """
    before = load_shared(run)
    for key in ("arch", "norm"):
        mine, theirs = getattr(before.trunk, key), getattr(learned.trunk, key)
        if mine != theirs:
            raise BadInput(
                f"trunk.{key} of {run} is {mine!r}",
                got=theirs,
                try_="a network of init = this run",
            )
    before.trunk.load_shared(learned.trunk.shared())
    return evaluate(before, domains, device=device, progress=False)


def told(found: Difference) -> str:
    """One line for people."""
    sign = "+" if found.value >= 0 else "−"
    change = f"{sign}{number(abs(found.value), found.unit)}"
    words = "better" if found.gain > 0 else "worse" if found.gain < 0 else "the same"
    sure = "" if found.clear or not found.gain else ", within the noise"
    return (
        f"{found.domain}/{found.task}: {found.metric} {number(found.theirs, found.unit)} → "
        f"{number(found.ours, found.unit)}{spaced(found.unit)} ({change}: {words}{sure})"
    )


def _only(outcomes: Outcomes, names: set[str]) -> Outcomes:
    parts = {key: part for key, part in outcomes.tasks.items() if key[0] in names}
    return Outcomes(outcomes.split, parts, {name: outcomes.image_digests[name] for name in names})
