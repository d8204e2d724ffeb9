"""`joined`: the draws of `round-robin` in one forward pass; shared norms get mixed batches."""

from __future__ import annotations

from onetrunk.data.sampling.round_robin import RoundRobin


class Joined(RoundRobin):
    """One batch of each domain, joined for the forward pass. All domains need one image size."""

    joined = True


SAMPLER = Joined
