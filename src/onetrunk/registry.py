"""Built-in methods by name, found by the names of their files.

A registry lists the methods of one package, in which each public file defines one method. The name
of a method is the name of its file, with dashes for underscores: `db-mtl` is defined in
`db_mtl.py`. The file binds the method, a class or a function, to one agreed name:

    # onetrunk/train/weighting/db_mtl.py
    class DbMtl:
        needs = "jacobian"

    WEIGHTING = DbMtl

    # where weightings are made by name
    WEIGHTINGS = Registry[type[Weighting]]("onetrunk.train.weighting", "weighting")
    WEIGHTINGS.load("db-mtl")               # imports onetrunk.train.weighting.db_mtl, nothing else
    WEIGHTINGS.load("package.module:thing")  # a method that a user wrote
    list(WEIGHTINGS)                         # all built-in names; imports none of them

To add a method, add a file. Files whose names start with an underscore contain shared code and are
not methods.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Generic, TypeVar, cast

from onetrunk.objects import load_object

T = TypeVar("T")


class Registry(Generic[T]):
    """The methods of one kind: built-in ones, and users' own as `"package.module:thing"`.

    Args:
        package: The full name of the package that contains one file per method.
        kind: The kind of the methods, for messages: "weighting", "feature loss".
        attribute: The name that each file binds its method to; by default `kind` in capitals, with
            underscores for spaces: `WEIGHTING`, `FEATURE_LOSS`.
    """

    def __init__(self, package: str, kind: str, attribute: str | None = None) -> None:
        self.package = package
        self.kind = kind
        self.attribute = attribute or kind.upper().replace(" ", "_")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all built-in methods, sorted. No method is imported."""
        spec = find_spec(self.package)
        folders = spec.submodule_search_locations if spec is not None else None
        files = (module.name for module in pkgutil.iter_modules(folders or []))
        return tuple(sorted(name.replace("_", "-") for name in files if not name.startswith("_")))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def load(self, name: str) -> T:
        """Import a method: a built-in one by its name, or a user's as `"package.module:thing"`."""
        if name not in self:
            return cast(T, load_object(name, self.kind, self.names))
        module = f"{self.package}.{name.replace('-', '_')}"
        return cast(T, getattr(import_module(module), self.attribute))
