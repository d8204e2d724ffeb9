"""Save and load models; `model_files.py` describes the files."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from onetrunk.nn.model_files import load_model, load_models, save_models
from onetrunk.nn.universal import Universal
from onetrunk.objects import Trust, trusting


def save(model: Universal, folder: str | PathLike[str]) -> Path:
    """Write the model into `folder`/model; a model that is already there is replaced."""
    return save_models({"": model}, folder)


def load(folder: str | PathLike[str], domain: str | None = None, *, trust: Trust = ()) -> Universal:
    """Load the model of a folder, in evaluation mode.

    Args:
        folder: The folder of a run, or one that `save` wrote.
        domain: The domain, if the folder has one network per domain.
        trust: Modules whose code the folder may name: those of users' norms, adapters and heads.
    """
    with trusting(trust):
        return load_model(folder, domain, Universal)


def models_of(folder: str | PathLike[str]) -> dict[str, Universal]:
    """Load the model of each domain: one model for all of them, or one network each."""
    return load_models(folder, Universal)
