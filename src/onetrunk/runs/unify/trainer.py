"""Training of the stages of `onetrunk unify`: with a search, to a pause, or to the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from onetrunk.config import Recipe
from onetrunk.data.domain import Domain
from onetrunk.errors import Diverged
from onetrunk.progress import say
from onetrunk.runs.experiment import is_finished
from onetrunk.runs.open import Run
from onetrunk.runs.train import train_models
from onetrunk.runs.unify.record import Record
from onetrunk.runs.unify.search import search
from onetrunk.store.run_folder import CHECKPOINTS
from onetrunk.train.callbacks import Callback, Training
from onetrunk.train.initialize import start_from
from onetrunk.train.loop import Paused


class _Heartbeat(Callback):
    """Writes the used time at every validation, so that a kill loses little of it."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def on_eval(self, training: Training) -> None:
        self.record.write()


class Trainer:
    """Trains stages that are not finished.

    Args:
        record: The decisions so far.
        rates: The learning rates of a search.
        device: Where to train.
    """

    def __init__(self, record: Record, rates: Sequence[float], device: torch.device) -> None:
        self.record, self.rates, self.device = record, rates, device

    def train(
        self, recipe: Recipe, domains: Sequence[Domain], pause_at: int | None = None
    ) -> Run | None:
        """Train a stage to its end, or to a pause; None if it is paused."""
        folder = recipe.out_folder
        if is_finished(folder, recipe.text_in(folder), resume=True):
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
            return Run(folder, domains=domains)
        models = recipe.make_model(domains)
        if recipe.init_folder is not None:
            start_from(recipe.init_folder, models, quiet=True)
        callbacks = [] if recipe.train.frozen else [_Heartbeat(self.record)]
        try:
            run = train_models(
                models,
                domains,
                recipe,
                resume=True,
                device=self.device,
                callbacks=callbacks,
                pause_at=pause_at,
            )
        except Paused:
            return None
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # a stage is not trained further
        self.record.write()
        return run

    def optional(self, name: str, recipe: Recipe, domains: Sequence[Domain]) -> None:
        """Train a stage that starts from a trained network; one that diverges is left out."""
        stage = self.record.stage(name)
        if stage.get("diverged"):
            return
        try:
            self.train(recipe, domains)
        except Diverged as error:
            say(f"{name} is left out: {error}")
            stage["diverged"] = True
            self.record.write()
            shutil.rmtree(recipe.out_folder, ignore_errors=True)

    def search(
        self, name: str, recipe_of: Callable[[float], Recipe], domains: Sequence[Domain]
    ) -> Path:
        """Search a learning rate and train with it; return the folder of the run.

        If the best rate diverges after the search, it is left out, and the search starts again.
        """
        stage = self.record.stage(name)
        while True:
            rates = [rate for rate in self.rates if rate not in stage.get("diverged", [])]
            best = search(
                name,
                rates,
                recipe_of,
                lambda recipe, step: self.train(recipe, domains, step),
                stage,
                self.record.write,
            )
            try:
                self.train(best, domains)
            except Diverged as error:
                if len(rates) == 1:
                    raise
                say(f"{name}: the learning rate {best.train.lr:g} is too high: {error}")
                diverged = [*stage.get("diverged", []), best.train.lr]
                left = [rate for rate in rates if rate not in diverged]
                stage |= {"diverged": diverged, "left": left, "rungs": []}
                self.record.write()
                shutil.rmtree(best.out_folder, ignore_errors=True)
                continue
            stage["lr"] = best.train.lr
            return best.out_folder
