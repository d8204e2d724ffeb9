"""What is wrong with a recipe, in onetrunk's words: the place, expected, came, exists, next."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from onetrunk.data.task import NAME
from onetrunk.errors import BadInput

WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list",
}


def faults(
    cls: type[BaseModel], error: ValidationError, document: Mapping[str, Any], place: str = ""
) -> list[str]:
    """One line for each thing that is wrong with the document of a model."""
    lines: list[str] = []
    for found in error.errors(include_url=False):
        where = _place(found["loc"], document, place)
        inner = found.get("ctx", {}).get("error")
        if isinstance(inner, BadInput):
            new = [f"{where}: {line}" if where else line for line in str(inner).split("\n")]
        else:
            new = [str(_say(cls, found["type"], found["loc"], found["input"], where))]
        lines += [line for line in new if line not in lines]
    return lines


def _say(
    cls: type[BaseModel], kind: str, loc: tuple[int | str, ...], got: Any, where: str
) -> BadInput:
    owner, field = _field(cls, loc)
    if kind == "extra_forbidden":
        return BadInput(
            f"{where}: unknown key", got=str(loc[-1]), available=list(owner.model_fields)
        )
    if kind == "missing":
        need = field.description if field is not None and field.description else "a value"
        return BadInput(f"{where}: it is missing: {need}")
    if field is None:
        return BadInput(f"{where}: expected a table", got=got)
    choices = [c for t in _flat(field.annotation) if get_origin(t) is Literal for c in get_args(t)]
    if kind == "literal_error" and choices:
        return BadInput(f"{where}: unknown {loc[-1]}", got=got, available=choices)
    quoted = isinstance(got, int | float) and kind == "string_type"
    return BadInput(
        f"{where}: expected {_expected(field, isinstance(loc[-1], int))}",
        got=got,
        try_=f"in quotes, '{got}'" if quoted else None,
    )


def _expected(field: FieldInfo, inside: bool) -> str:
    """The type and range of a field, or of what is in its list: "a number above 0"."""
    types = _flat(field.annotation, inside)
    kinds = [get_origin(t) or t for t in types]
    if any(isinstance(t, type) and issubclass(t, BaseModel) for t in kinds):
        return "a table"
    words = [WORDS[kind] for kind in kinds if kind in WORDS]
    said = " or ".join(dict.fromkeys(words)) or "another value"
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
    return f"{said} {' and '.join(bounds)}".strip()


def _place(loc: tuple[int | str, ...], document: Mapping[str, Any], place: str) -> str:
    """`domains.shop.size`: a domain by its name, where it has one."""
    at: Any = document
    said = place
    for step in loc:
        try:
            at = at[step]
        except (KeyError, IndexError, TypeError):
            at = None
        if isinstance(step, int):
            name = at.get("name") if isinstance(at, Mapping) else None
            said += f".{name}" if isinstance(name, str) and NAME.fullmatch(name) else f"[{step}]"
        else:
            said += f".{step}" if said else step
    return said


def _field(
    cls: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[type[BaseModel], FieldInfo | None]:
    """The table that a place lies in, and its field; None where the place is a table itself."""
    owner: type[BaseModel] = cls
    field: FieldInfo | None = None
    for step in loc:
        tables = _tables(field)
        if isinstance(step, int):
            if tables:
                owner, field = tables[0], None
        else:
            owner = tables[0] if tables else owner
            field = owner.model_fields.get(step)
    return owner, field


def _tables(field: FieldInfo | None) -> list[type[BaseModel]]:
    """The models that a field's type speaks of."""
    if field is None:
        return []
    types = _flat(field.annotation, inside=True)
    return [t for t in types if isinstance(t, type) and issubclass(t, BaseModel)]


def _flat(annotation: Any, inside: bool = False) -> list[Any]:
    """The members of a union; with `inside`, of its lists too."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType) or (inside and origin is tuple):
        return [t for a in get_args(annotation) for t in _flat(a, inside)]
    return [annotation]
