"""Domains as users give them to a function: one, or several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput


def list_domains(given: Domain | Iterable[Domain]) -> list[Domain]:
    """Return the domains as a list; what is not a domain, or one given twice, is refused."""
    if isinstance(given, Domain):
        return [given]
    if isinstance(given, Mapping):
        raise BadInput(
            "expected a list of domains", got=type(given).__name__, try_="list(domains.values())"
        )
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise not_a_domain(given)
    listed = list(given)
    for each in listed:
        if not isinstance(each, Domain):
            raise not_a_domain(each)
    names = [domain.name for domain in listed]
    repeated = list(dict.fromkeys(name for name in names if names.count(name) > 1))
    if repeated:
        raise BadInput(
            "expected each domain once",
            got=", ".join(repeated),
            try_="another name, if these are different domains",
        )
    return listed


def not_a_domain(thing: object) -> BadInput:
    """Return the error for an object that is not a domain."""
    return BadInput(
        "expected domains: objects of ot.Domain",
        got=repr(thing) if isinstance(thing, str) else type(thing).__name__,
        try_='ot.Domain("shop", "folder:photos")',
    )
