"""Conformance of samplers."""

from __future__ import annotations

from onetrunk.data.sampling import Sampler

SIZES = {"ants": 40, "bees": 7, "cats": 23}
BATCHES = {"ants": 8, "bees": 4, "cats": 8}


def check_sampler(name: str) -> None:
    """Check a sampler by its name."""
    assert Sampler(SIZES, BATCHES, kind=name).steps_per_epoch >= 1, "an epoch without steps"
    sampler = Sampler(SIZES, BATCHES, seed=3, kind=name)
    first, state = _steps(sampler, 10), sampler.state()
    rest = _steps(sampler, 10)
    again = Sampler(SIZES, BATCHES, seed=3, kind=name)
    assert _steps(again, 20) == first + rest, "other steps with the same seed"
    resumed = Sampler(SIZES, BATCHES, seed=3, kind=name)
    resumed.restore(state)
    assert _steps(resumed, 10) == rest, "other steps after resuming"
    for step in first + rest:
        assert step, "a step without a batch"
        for domain, places in step:
            assert domain in SIZES, f"an unknown domain: {domain}"
            assert len(places) == BATCHES[domain], f"a batch of {len(places)} images of {domain}"


def _steps(sampler: Sampler, count: int) -> list[list[tuple[str, list[int]]]]:
    steps = [sampler.next() for _ in range(count)]
    return [[(draw.domain, draw.places.tolist()) for draw in step] for step in steps]
