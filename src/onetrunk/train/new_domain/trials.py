"""Trials: the kinds of adapters that are trained for a new domain, through the ordinary loop.

Results are kept in the run's folder (`trials.json`, `trials/KIND.pack`), so that an interrupted run
continues with what is not done yet. The checkpoints of finished trials are deleted.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onetrunk.config import Train
from onetrunk.config.add_recipe import AddRecipe, card_adapters
from onetrunk.data.domain import Domain
from onetrunk.nn.adapters import NO_ADAPTERS
from onetrunk.nn.card import Card
from onetrunk.nn.pack import Pack
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.store.run_folder import CHECKPOINTS, METRICS, RunFolder, Saved
from onetrunk.train.features import FOLDER
from onetrunk.train.frozen_heads import fit_heads
from onetrunk.train.loggers import Logger
from onetrunk.train.loop import fit
from onetrunk.train.new_domain.initial_slots import (
    InitialSlots,
    choose_initial_slots,
    copy_of_slots,
    set_slots,
)
from onetrunk.train.new_domain.previous_pack import copy_previous
from onetrunk.train.new_domain.scratch_model import (
    check_own_norms,
    count_adapter_parameters,
    decay_factor,
    make_scratch_model,
    scale_heads,
    unfreeze_own,
)
from onetrunk.train.selection import Selection

TRIALS = "trials"


@dataclass(frozen=True)
class AdapterKind:
    """The adapters of a new domain, or "norm" or "none" in their place."""

    name: str
    rank: int | None = None  # of low-rank adapters

    @property
    def label(self) -> str:
        """The name and rank, for messages and file names."""
        name = self.name.replace(":", "-").replace(".", "-").lower()[:40]
        return name if self.rank is None else f"{name}-{self.rank}"

    @property
    def adapted(self) -> bool:
        """Whether the domain owns adapters beside its norms and heads."""
        return card_adapters(self.name) != NO_ADAPTERS


HEADS_ONLY = AdapterKind(NO_ADAPTERS)


@dataclass(frozen=True)
class TrialResult:
    """The validation error and the size of one kind of adapters."""

    kind: AdapterKind
    error: float
    bytes: int  # of the pack
    step: int  # of the best evaluation
    seconds: float

    def to_json(self, trunk: int) -> dict[str, Any]:
        """Return the record for the scores; `trunk`: the trunk's size in bytes."""
        return {
            "adapters": self.kind.name,
            "rank": self.kind.rank,
            "error": self.error,
            "bytes": self.bytes,
            "share": self.bytes / trunk,
            "step": self.step,
            "seconds": self.seconds,
        }


@dataclass
class TrialRunner:
    """Trains and records the trials of one new or updated domain."""

    model: Universal  # in use; it is not changed
    domain: Domain
    recipe: AddRecipe
    run: RunFolder
    logger: Logger
    device: torch.device
    old: Pack | None = None  # of an update: the pack in use
    start: Pack | None = None  # of an update: the pack that training starts from

    def __post_init__(self) -> None:
        path = self.run.path / f"{TRIALS}.json"
        self.done: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        # initial slots whose statistics were recomputed, which takes many forward passes
        self._settled: dict[AdapterKind, dict[str, Tensor]] = {}

    def record(self, key: str, value: Mapping[str, Any]) -> None:
        """Write a finished step to the run's folder."""
        self.done[key] = dict(value)
        self.run.write(f"{TRIALS}.json", self.done)

    def scratch_model(self, kind: AdapterKind) -> Universal:
        """Return a scratch model with adapters of this kind and initial slots."""
        card = Card.of(self.domain, card_adapters(kind.name), kind.rank)
        if self.start is not None:  # an update keeps the user's heads of tasks that remain
            kept = {t.name: h for t in card.tasks if (h := self.start.card.heads.get(t.name))}
            card = replace(card, heads={**kept, **card.heads})
        provenance = {"batch": self.recipe.domain.batch or self.recipe.train.batch}
        model = make_scratch_model(self.model, card.with_record(provenance, {}), self.recipe.seed)
        model.to(self.device)
        check_own_norms(model, card.name, kind.name)
        self._initialize(model, kind)
        scale_heads(model, self.domain)
        return model

    def _initialize(self, model: Universal, kind: AdapterKind) -> None:
        """Set the initial slots, which are chosen once for all kinds with the same slots."""
        name, seed = self.domain.name, self.recipe.seed
        if self.start is not None:
            copy_previous(model, self.start)
            return
        if kind in self._settled:
            set_slots(model, name, self._settled[kind])
            return
        adapted = count_adapter_parameters(model, name) > 0
        key = "initial slots, adapted" if adapted else "initial slots"
        if key in self.done:
            initial = InitialSlots(**self.done[key])
            initial.apply(model, self.model, self.domain, seed)
        else:
            start = self.recipe.add.start
            initial = choose_initial_slots(model, self.model, self.domain, start, seed)
            if initial.errors:
                say(f"{name} {initial.description}")
            self.record(key, asdict(initial))
        if initial.new_statistics:
            self._settled[kind] = copy_of_slots(model, name)

    def train(self, model: Universal, kind: AdapterKind, part: str, domain: Domain) -> Selection:
        """Train a scratch model in a part of the run; continue where an interrupted one ended."""
        self._rewind(part)
        train, fit_model = self.recipe.train, fit_heads
        # users' heads have no solution in closed form
        if kind != HEADS_ONLY or model.domains[domain.name].heads:
            unfreeze_own(model, domain.name)
            train, fit_model = self._with_decay(model, domain), fit
        return fit_model(
            model,
            [domain],
            train,
            self.run,
            self.logger,
            part=part,
            device=self.device,
            seed=self.recipe.seed,
        )

    def _with_decay(self, model: Universal, domain: Domain) -> Train:
        """Return the training settings with a weight decay for the size of the adapters."""
        factor, train = self.recipe.add.decay, self.recipe.train
        if factor is None:
            adapters = count_adapter_parameters(model, domain.name)
            factor = decay_factor(adapters, len(domain.train))
        return train.model_copy(update={"weight_decay": train.weight_decay * factor})

    def _rewind(self, part: str) -> None:
        """Remove logged lines that are newer than the last checkpoint or finished part."""
        saved = self.run.last(part)
        if saved is None and self.done.get("lines"):
            saved = Saved(0, self.run.path, {"metrics_bytes": self.done["lines"]["bytes"]})
        self.run.rewind(saved)

    def delete_checkpoints(self, part: str) -> None:
        """Delete the checkpoints of a finished part, and keep the lines that it logged."""
        path = self.run.path / METRICS
        self.record("lines", {"bytes": path.stat().st_size if path.exists() else 0})
        shutil.rmtree(self.run.path / CHECKPOINTS / part, ignore_errors=True)

    def trial(self, kind: AdapterKind) -> TrialResult:
        """Train adapters of this kind, unless that is done; return the result on validation."""
        part = kind.label
        if (done := self.done.get(part)) is not None:
            return TrialResult(kind, **done)
        began = time.monotonic()
        model = self.scratch_model(kind)
        chosen = self.train(model, kind, part, self.domain)
        return self.keep(model, kind, chosen.score, chosen.step, time.monotonic() - began)

    def keep(
        self, model: Universal, kind: AdapterKind, error: float, step: int, seconds: float
    ) -> TrialResult:
        """Save the domain's pack and record the result."""
        pack = model.eval().pack(self.domain.name)
        path = self.pack_path(kind)
        path.parent.mkdir(exist_ok=True)
        with self.run.writing(path.name):
            pack.save(path)
        result = TrialResult(kind, error, pack_bytes(pack), step, round(seconds, 3))
        fields = {key: getattr(result, key) for key in ("error", "bytes", "step", "seconds")}
        self.record(kind.label, fields)
        self.delete_checkpoints(kind.label)
        return result

    def pack_path(self, kind: AdapterKind) -> Path:
        """Return the path of a trial's pack."""
        return self.run.path / TRIALS / f"{kind.label}.pack"

    def clean_up(self) -> None:
        """Delete what only an interrupted run needs."""
        for folder in (TRIALS, CHECKPOINTS, FOLDER):
            shutil.rmtree(self.run.path / folder, ignore_errors=True)
        (self.run.path / f"{TRIALS}.json").unlink(missing_ok=True)


def pack_bytes(pack: Pack) -> int:
    """Return the size of a pack's tensors in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in pack.tensors.values())


def trunk_bytes(model: Universal) -> int:
    """Return the size of the shared trunk in bytes."""
    return sum(t.numel() * t.element_size() for t in model.trunk.shared().values())


def with_record(pack: Pack, provenance: Mapping[str, Any], scores: Mapping[str, Any]) -> Pack:
    """Return the pack with this provenance and these scores in its card."""
    return replace(pack, card=pack.card.with_record(provenance, scores))
