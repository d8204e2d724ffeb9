"""Check domains before they are used together, and ask once for the disk space that they take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from onetrunk.data.cache_room import asking, check_large, obstacle
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, OnetrunkError


@contextmanager
def asking_once(domains: Sequence[Domain]) -> Iterator[None]:
    """Inside the block, the images of these domains are decoded without a further question.

    Raises BadInput, before anything is decoded, if their caches together need a permission that is
    not given.
    """
    plans = []
    for domain in domains:
        if domain.sample is None and "decoded" not in vars(domain):
            with suppress(OnetrunkError):  # raised again when the domain is read
                plan = domain.cache_plan()
                if plan is not None and plan.missing and not obstacle(plan):
                    plans.append(plan)
    check_large(plans)
    with asking(lambda _: True):
        yield


def check_domains(domains: Sequence[Domain]) -> None:
    """Raise one BadInput that lists the problems of all domains, repeated names included."""
    names = [domain.name for domain in domains]
    errors: list[BadInput] = [
        BadInput(f"two domains have the name {name}", try_="a different name for each")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    with asking_once(domains):
        for domain in domains:
            try:
                domain.check()
            except BadInput as error:
                errors.append(error)
    if errors:
        raise BadInput.several(errors)
