"""Overrides of a recipe's keys from the command line (`--set a.b=c`), and grids of them."""

from __future__ import annotations

import copy
import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from onetrunk.config.train import LENGTHS
from onetrunk.errors import BadInput

OPEN, CLOSE, QUOTES = "[{", "]}", "\"'"


def apply_sets(document: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a document in which the keys in `sets` have the given values."""
    changed = copy.deepcopy(dict(document))
    parsed = [_parse(text) for text in sets]
    lengths = {keys[1] for keys, _ in parsed if keys[0] == "train" and len(keys) == 2} & {*LENGTHS}
    train = changed.get("train")
    if lengths and isinstance(train, dict):  # a new length replaces the old one
        for name in LENGTHS:
            train.pop(name, None)
    for keys, value in parsed:
        _put(changed, keys, value)
    return changed


def grid(sets: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return all combinations of the values, if some keys list several separated by commas.

    Each combination is (label, sets). The label has the keys that vary and may be the name of a
    folder: "train.lr=0.1,trunk.norm=shared".
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
    """Return a TOML value; a bare word is a string."""
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
    table: Any = document
    for depth, key in enumerate(keys[:-1]):
        place = f"--set {'.'.join(keys[: depth + 1])}"
        if isinstance(table, list):
            by_name = {d["name"]: d for d in table if isinstance(d, dict) and "name" in d}
            if key not in by_name:
                raise BadInput("unknown domain", place=place, got=key, available=by_name)
            table = by_name[key]
            continue
        table = table.setdefault(key, {})
        if not isinstance(table, dict | list):
            raise BadInput("its value is not a table", place=place, got=".".join(keys))
    if isinstance(table, list):
        raise BadInput(
            "expected the name of a domain and a key",
            place="--set domains",
            got=".".join(keys),
            try_="--set domains.NAME.KEY=VALUE",
        )
    table[keys[-1]] = value
