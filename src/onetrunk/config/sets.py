"""`--set a.b=c`: keys of a recipe from the command line, and grids of them."""

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
    """A copy of a recipe's document in which these keys have these values."""
    made = copy.deepcopy(dict(document))
    parsed = [_parse(text) for text in sets]
    lengths = {keys[1] for keys, _ in parsed if keys[0] == "train" and len(keys) == 2} & {*LENGTHS}
    train = made.get("train")
    if lengths and isinstance(train, dict):  # a new length stands in place of the old
        for name in LENGTHS:
            train.pop(name, None)
    for keys, value in parsed:
        _put(made, keys, value)
    return made


def grid(sets: Sequence[str]) -> list[tuple[str, list[str]]]:
    """All combinations where a value lists several, split at commas outside brackets and quotes.

    Each is (label, sets). The label names what varies and may name a folder:
    "train.lr=0.1,trunk.norm=shared".
    """
    options: list[list[str]] = []
    for text in sets:
        key, equals, rest = text.partition("=")
        if not equals:
            raise BadInput("--set is KEY=VALUE", got=text, try_="--set train.lr=0.1")
        values = split_commas(rest)
        if len(values) > 1 and not all(values):
            raise BadInput("--set: a value between commas is missing", got=text)
        if len(set(values)) < len(values):
            raise BadInput("--set: each value of a grid once", got=text)
        options.append([f"{key}={value}" for value in values])
    made: list[tuple[str, list[str]]] = []
    for chosen in itertools.product(*options):
        varied = [s for s, all_of in zip(chosen, options, strict=True) if len(all_of) > 1]
        label = ",".join(re.sub(r"[^\w.=+-]+", "-", part).strip("-") for part in varied)
        if label in [other for other, _ in made]:  # "a/b" and "a-b"
            label += f"-{len(made) + 1}"
        made.append((label, list(chosen)))
    return made


def split_commas(text: str) -> list[str]:
    """The parts of a text between commas, where those in brackets and quotes are no separators."""
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


def _parse(text: str) -> tuple[list[str], Any]:
    key, equals, rest = text.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not equals or not all(keys):
        raise BadInput("--set is KEY=VALUE", got=text, try_="--set train.lr=0.1")
    return keys, value_of(rest.strip())


def value_of(text: str) -> Any:
    """A TOML value; bare words are strings."""
    try:
        found = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    value = found.get("value")
    if len(found) > 1 or not isinstance(value, bool | int | float | str | list | dict):
        return text  # lines of their own, dates
    return value


def _put(document: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    at: Any = document
    for place, key in enumerate(keys[:-1]):
        where = ".".join(keys[: place + 1])
        if isinstance(at, list):
            named = {d["name"]: d for d in at if isinstance(d, dict) and "name" in d}
            if key not in named:
                raise BadInput(f"--set {where}: no such domain", got=key, available=named)
            at = named[key]
            continue
        if key not in at:
            at[key] = {}
        at = at[key]
        if not isinstance(at, dict | list):
            raise BadInput(f"--set {where}: it holds no keys", got=".".join(keys))
    if isinstance(at, list):
        raise BadInput(
            "--set domains: a domain has a name and keys",
            got=".".join(keys),
            try_="--set domains.NAME.KEY=VALUE",
        )
    at[keys[-1]] = value
