"""Overrides of a recipe's keys from the command line (`--set a.b=c`), and grids of them."""

from __future__ import annotations

import copy
import fnmatch
import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from onetrunk.config.optimizers import without_optimizer
from onetrunk.config.train import LENGTHS
from onetrunk.data.domain_settings import DomainSettings
from onetrunk.errors import BadInput

OPEN, CLOSE, QUOTES = "[{", "]}", "\"'"


def apply_sets(document: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a document in which the keys in `sets` have the given values.

    A domain is given by its name, and several by a pattern: `domains.*.size=48`.
    """
    changed = copy.deepcopy(dict(document))
    parsed = [_parse(text) for text in sets]
    lengths = {keys[1] for keys, _ in parsed if keys[0] == "train" and len(keys) == 2} & {*LENGTHS}
    train = changed.get("train")
    if lengths and isinstance(train, dict):  # a new length replaces the old one
        for name in LENGTHS:
            train.pop(name, None)
    if isinstance(train, dict):  # and a new optimizer the values of the old one
        for keys, value in parsed:
            if keys == ["train", "optimizer"]:
                changed["train"] = without_optimizer(changed["train"], value)
    for keys, value in parsed:
        _put(changed, keys, value)
    return changed


def grid(sets: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return all combinations of the values of keys that have several, separated by commas.

    Each combination is (label, sets). The label consists of the keys that vary, and can be the name
    of a folder: "train.lr=0.1,trunk.norm=shared".
    """
    options: list[list[str]] = []
    for text in sets:
        key, equals, rest = text.partition("=")
        if not equals:
            raise _not_a_set(text)
        values = split_commas(rest)
        if len(values) > 1 and not all(values):
            raise BadInput("expected a value between all commas of --set", got=text)
        if len(set(values)) < len(values):
            raise BadInput("expected different values in a grid of --set", got=text)
        options.append([f"{key}={value}" for value in values])
    combinations: list[tuple[str, list[str]]] = []
    for sets_ in itertools.product(*options):
        varied = [s for s, values in zip(sets_, options, strict=True) if len(values) > 1]
        label = ",".join(re.sub(r"[^\w.=+-]+", "-", part).strip("-") for part in varied)
        if label in [other for other, _ in combinations]:  # "a/b" and "a-b"
            label += f"-{len(combinations) + 1}"
        combinations.append((label, list(sets_)))
    return combinations


def split_commas(text: str) -> list[str]:
    """Split a text at the commas that are not within brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in QUOTES:
            quote = c
        elif c in OPEN:
            depth += 1
        elif c in CLOSE:
            depth -= 1
        if c == "," and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts]


def value_of(text: str) -> Any:
    """Return the TOML value in a text; text that is not TOML is a string."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    value = document.get("value")
    if len(document) > 1 or not isinstance(value, bool | int | float | str | list | dict):
        return text  # several lines, or a date
    return value


def _parse(text: str) -> tuple[list[str], Any]:
    key, equals, rest = text.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not equals or not all(keys):
        raise _not_a_set(text)
    return keys, value_of(rest.strip())


def _not_a_set(text: str) -> BadInput:
    return BadInput("expected --set KEY=VALUE", got=text, try_="--set train.lr=0.1")


def _put(document: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set a key of a document; in a list of tables, of those whose names match a pattern."""
    tables: list[Any] = [document]
    for depth, key in enumerate(keys[:-1]):
        place = f"--set {'.'.join(keys[: depth + 1])}"
        inner: list[Any] = []
        for table in tables:
            if isinstance(table, list):
                inner += _matching(table, key, place)
            else:
                inner.append(table.setdefault(key, {}))
            if not all(isinstance(each, dict | list) for each in inner):
                raise BadInput("its value is not a table", place=place, got=".".join(keys))
        tables = inner
    if len(keys) == 3 and keys[0] == "domains" and len(tables) > 1:
        _check_once(tables[0], keys[1], keys[2], value)
    for table in tables:
        if isinstance(table, list):
            raise BadInput(
                "expected the name of a domain and a key",
                place="--set domains",
                got=".".join(keys),
                try_="--set domains.NAME.KEY=VALUE, or domains.*.KEY=VALUE for all domains",
            )
        table[keys[-1]] = copy.deepcopy(value)


def _matching(tables: Sequence[Any], pattern: str, place: str) -> list[dict[str, Any]]:
    """Return the tables whose names match a pattern such as `*` or `shop-*`."""
    by_name = {str(d["name"]): d for d in tables if isinstance(d, dict) and "name" in d}
    names = [pattern] if pattern in by_name else fnmatch.filter(by_name, pattern)
    if not names:
        raise BadInput("unknown domain", place=place, got=pattern, available=by_name)
    return [by_name[name] for name in names]


def _check_once(table: Mapping[str, Any], pattern: str, key: str, value: Any) -> None:
    """Raise one error for a key or a value that all matching domains would refuse."""
    place = f"domains.{pattern}"
    try:
        DomainSettings.of({**table, key: value}, place)
    except BadInput as error:
        about = [each for each in error.errors if each.place.startswith(f"{place}.{key}")]
        if about:
            raise BadInput.several(about) from None
