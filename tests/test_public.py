"""The public names: what a user may rely on. A change here is a change for every user."""

from __future__ import annotations

import inspect
import subprocess
import sys

import onetrunk

PUBLIC = [
    "Augment",
    "BadInput",
    "Batch",
    "Budget",
    "Comparison",
    "Domain",
    "DomainResult",
    "Failed",
    "Foreign",
    "Loader",
    "Missing",
    "OnetrunkError",
    "Pack",
    "Pixels",
    "Recipe",
    "Run",
    "Split",
    "Table",
    "Task",
    "Trunk",
    "Universal",
    "add",
    "budget",
    "compare",
    "decathlon_score",
    "delta_mtl",
    "evaluate",
    "export",
    "import_pack",
    "inspect",
    "load",
    "precompute",
    "relabel",
    "remove",
    "report",
    "save",
    "train",
    "undo",
    "update",
]


def test_the_public_names_are_these() -> None:
    assert sorted(onetrunk.__all__) == PUBLIC
    assert all(hasattr(onetrunk, name) for name in PUBLIC)


def test_every_public_name_says_what_it_is() -> None:
    for name in PUBLIC:
        assert inspect.getdoc(getattr(onetrunk, name)), name


def test_a_domains_arguments_are_these() -> None:
    assert list(inspect.signature(onetrunk.Domain).parameters) == [
        *("name", "source", "tasks", "size", "fit", "margin", "fill", "flip", "augment"),
        *("normalize", "image", "group", "split", "weight", "batch", "allow_bad", "base", "cache"),
    ]


def test_the_package_runs_as_a_module() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "onetrunk", "--help"], capture_output=True, text=True, check=True
    )
    assert "data" in found.stdout
