"""The base class of all settings, and readable errors for invalid values.

A concept is declared once: as a `Settings` class or as a dataclass, each field with its type,
default, bounds and description. The keys of a recipe, the arguments of a constructor, the header of
a file and the list of keys that `onetrunk recipes keys` prints are derived from that declaration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from onetrunk.errors import BadInput, OnetrunkError, join_places, nearest

T = TypeVar("T")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # of a domain, a task or a run
TYPE_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list",
    dict: "a table",
}


def _auto(value: object) -> object:
    return None if isinstance(value, str) and value == "auto" else value


def _empty(value: object) -> object:
    return None if isinstance(value, str) and value == "" else value


def _word(value: object) -> object:
    return (value,) if isinstance(value, str) and value and value[0] != "[" else value


AUTO = BeforeValidator(_auto)  # None is written "auto"
EMPTY = BeforeValidator(_empty)  # None is written ""
LIST = Field(strict=False)  # a list becomes a tuple
WORD = BeforeValidator(_word)  # of a list of words, one may be written alone


@dataclass(frozen=True)
class Names:
    """Metadata of a field: the names that it accepts beside others, for errors."""

    names: tuple[str, ...]


class Settings(BaseModel):
    """Validated, immutable settings; each field's description explains the key of that name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise _translate(type(self), error, given) from None

    # pydantic: validate nested settings without calling their __init__
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def of(cls, document: Mapping[str, Any], place: str = "") -> Self:
        """Return the settings in a document, or raise one BadInput that lists all problems.

        Args:
            document: Values by key, as a file or a caller gave them.
            place: The prefix of keys in errors, for example "train".
        """
        try:
            return cls.model_validate(dict(document))
        except ValidationError as error:
            raise _translate(cls, error, document, place) from None

    def __repr_args__(self) -> Iterable[tuple[str, Any]]:  # pydantic: what `repr` shows
        return self.given().items()

    def __str__(self) -> str:
        return repr(self)

    def given(self) -> dict[str, Any]:
        """Return the values that were set explicitly, by key."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    def notes(self) -> dict[str, dict[str, str]]:
        """Return notes by table and key, which are written beside the description of the key."""
        return {}


def read_dataclass(kind: type[T], document: Mapping[str, Any]) -> T:
    """Return the dataclass in a document, with strict type checks; lists become tuples."""
    fields = fields_of(kind)
    unknown = [
        BadInput("unknown key", place=str(key), got=str(key), available=fields)
        for key in document
        if key not in fields
    ]
    if unknown:
        raise BadInput.several(unknown)
    try:
        # in strict mode, only JSON input may have lists for tuples and tables for dataclasses
        text = json.dumps(dict(document), default=str)
        value: T = _adapter(kind).validate_json(text, strict=True)  # type: ignore[arg-type]
        return value
    except ValidationError as error:
        raise _translate(kind, error, document) from None


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def fields_of(kind: type[Any]) -> dict[str, FieldInfo]:
    """Return the fields of settings or of a dataclass: annotation, default, bounds, description."""
    if issubclass(kind, BaseModel):
        return dict(kind.model_fields)
    if not is_dataclass(kind):
        raise TypeError(f"{kind.__name__} is neither settings nor a dataclass")
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: FieldInfo.from_annotation(hints[name])
        if field.default is MISSING
        else FieldInfo.from_annotated_attribute(hints[name], field.default)
        for name, field in kind.__dataclass_fields__.items()
    }


def expected(field: FieldInfo, item: bool = False) -> str:
    """Return the type and range of a field in words: "a number above 0".

    Args:
        field: The field of settings or of a dataclass.
        item: Describe the items of its list instead.
    """
    types = _members(field.annotation, item)
    kinds = [get_origin(kind) or kind for kind in types]
    if any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds):
        return "a table"
    words = [TYPE_NAMES[kind] for kind in kinds if kind in TYPE_NAMES]
    words += [
        f'"{value}"' for kind in types if get_origin(kind) is Literal for value in get_args(kind)
    ]
    bounds = []
    for bound in field.metadata:
        if isinstance(bound, Gt):
            bounds.append(f"above {bound.gt}")
        elif isinstance(bound, Ge):
            bounds.append(f"at least {bound.ge}")
        elif isinstance(bound, Lt):
            bounds.append(f"below {bound.lt}")
        elif isinstance(bound, Le):
            bounds.append(f"at most {bound.le}")
    text = " or ".join(dict.fromkeys(words)) or "another value"
    return f"{text} {' and '.join(bounds)}".strip()


def choices(field: FieldInfo) -> list[Any]:
    """Return the values that a field is limited to; an empty list if it is not."""
    types = _members(field.annotation)
    if any(get_origin(kind) is not Literal for kind in types):
        return []
    return [value for kind in types for value in get_args(kind)]


def comment(field: FieldInfo) -> str:
    """Return the description of a field with the values that it is limited to."""
    values = choices(field)
    listed = f": {' | '.join(map(str, values))}" if len(values) > 1 else ""
    return f"{field.description or ''}{listed}"


def spelled_none(field: FieldInfo) -> str | None:
    """Return how a file writes None for this key; None if the key is omitted."""
    return "auto" if AUTO in field.metadata else "" if EMPTY in field.metadata else None


def tables_in(field: FieldInfo) -> list[type[BaseModel]]:
    """Return the settings classes in the type of a field, or in its lists."""
    types = _members(field.annotation, items=True)
    return [kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _members(annotation: Any, items: bool = False) -> list[Any]:
    """Return the members of a union; with `items`, those of its tuples too."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType) or (items and origin is tuple):
        return [kind for arg in get_args(annotation) for kind in _members(arg, items)]
    return [annotation]


def _translate(
    kind: type[Any], error: ValidationError, document: Mapping[str, Any], prefix: str = ""
) -> OnetrunkError:
    """Convert an error of pydantic to one of onetrunk; `prefix` is the place of the document."""
    found: list[OnetrunkError] = []
    for fault in error.errors(include_url=False):
        place = join_places(prefix, _place(fault["loc"], document))
        inner = fault.get("ctx", {}).get("error")
        if isinstance(inner, BadInput):
            found.append(inner.within(place))
        else:
            found.append(_fault(kind, fault["type"], fault["loc"], fault["input"], place))
    return BadInput.several(found)


def _fault(
    kind: type[Any], fault: str, loc: tuple[int | str, ...], got: Any, place: str
) -> BadInput:
    table, field = _field(kind, loc)
    if fault == "extra_forbidden":
        key = str(loc[-1])
        return BadInput(
            "unknown key",
            place=place,
            got=key,
            available=fields_of(table),
            try_=_similar_key(table, key, place.removesuffix(key)),
        )
    if fault in ("missing", "missing_argument"):
        about = f": {field.description}" if field is not None and field.description else ""
        return BadInput(f"it is missing{about}", place=place)
    if field is None:
        return BadInput("expected a table", place=place, got=got)
    values = choices(field)
    if fault == "literal_error" and values:
        return BadInput(f"unknown {loc[-1]}", place=place, got=got, available=values)
    if WORD in field.metadata and isinstance(got, str) and got.startswith("["):
        return _unquoted(field, got, place)
    unquoted = fault == "string_type" and isinstance(got, int | float)
    return BadInput(
        f"expected {expected(field, isinstance(loc[-1], int))}",
        place=place,
        got=got,
        try_=f"in quotes, '{got}'" if unquoted else None,
    )


def _unquoted(field: FieldInfo, got: str, place: str) -> BadInput:
    """Return the error for a list of words without quotes, which a shell removes."""
    known = [name for each in field.metadata if isinstance(each, Names) for name in each.names]
    words = [word.strip().strip("\"'") for word in got.strip("[]").split(",")]
    meant = [word if word in known else nearest(word, known) or word for word in words]
    return BadInput(
        "expected a list of words in quotes",
        place=place,
        got=got,
        available=known or None,
        try_=f"--set '{place}={json.dumps(meant)}'",
    )


def _similar_key(table: type[Any], key: str, prefix: str) -> str | None:
    """Return the full name of a similar key of a table, or of this key of a table inside it."""
    fields = fields_of(table)
    if (near := nearest(key, fields)) is not None:
        return f"{prefix}{near}"
    for name, field in fields.items():
        for inner in tables_in(field):
            if key in fields_of(inner):
                listed = ".NAME" if get_origin(field.annotation) is tuple else ""
                return f"{prefix}{name}{listed}.{key}"
    return None


def _place(loc: tuple[int | str, ...], document: Any) -> str:
    """Return a place as a dotted key; an item of a list is given by its name, if it has one."""
    place, value = "", document
    for step in loc:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = None
        if isinstance(step, int):
            name = value.get("name") if isinstance(value, Mapping) else None
            step = name if isinstance(name, str) and NAME.fullmatch(name) else f"[{step}]"
        place = join_places(place, step)
    return place


def _field(kind: type[Any], loc: tuple[int | str, ...]) -> tuple[type[Any], FieldInfo | None]:
    """Return the table that contains a place, and its field; None if the place is a table."""
    table: type[Any] = kind
    field: FieldInfo | None = None
    for step in loc:
        tables = [] if field is None else tables_in(field)
        if isinstance(step, int):
            if tables:
                table, field = tables[0], None
        else:
            table = tables[0] if tables else table
            field = fields_of(table).get(step)
    return table, field
