"""The public names, on which users rely."""

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
    "Callback",
    "Comparison",
    "Distill",
    "Domain",
    "DomainResult",
    "Evaluation",
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
    "SuspiciousLabel",
    "Table",
    "Task",
    "Train",
    "Training",
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
    "suspicious_labels",
    "train",
    "undo",
    "unify",
    "update",
]


def test_the_public_names_are_these() -> None:
    assert sorted(onetrunk.__all__) == PUBLIC
    assert all(hasattr(onetrunk, name) for name in PUBLIC)


def test_every_public_name_has_a_docstring() -> None:
    for name in PUBLIC:
        assert inspect.getdoc(getattr(onetrunk, name)), name


def test_the_package_runs_as_a_module() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "onetrunk", "--help"], capture_output=True, text=True, check=True
    )
    assert "data" in found.stdout
