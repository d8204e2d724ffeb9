"""A trial: one kind of adapters learned for the new domain, through the ordinary loop.

What was tried is remembered in the growth's folder (`tried.json`, `tried/PART.pack`), so that a
growth that was killed goes on with what is not done yet; the checkpoints of what is done go.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from onetrunk.config import Train
from onetrunk.config.add_recipe import AddRecipe, card_adapters
from onetrunk.data.domain import Domain
from onetrunk.nn.card import Card
from onetrunk.nn.pack import Pack
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.store.run_folder import CHECKPOINTS, RunFolder, Saved
from onetrunk.train.features import FOLDER
from onetrunk.train.frozen_heads import fit_heads
from onetrunk.train.loggers import Logger
from onetrunk.train.loop import fit
from onetrunk.train.new_domain import initial_slots as starts
from onetrunk.train.new_domain.keep_slots import carry
from onetrunk.train.new_domain.scratch import (
    adapter_numbers,
    check_own,
    decay_factor,
    learn_own,
    make_worker,
    scale_heads,
)
from onetrunk.train.selection import Selection

TRIED = "tried"


@dataclass(frozen=True)
class Kind:
    """What a new domain may own: adapters by name, of a rank, or "norm", or "none"."""

    name: str
    rank: int | None = None

    @property
    def label(self) -> str:
        """For people, and as part of a file's name."""
        said = self.name.replace(":", "-").replace(".", "-").lower()[:40]
        return said if self.rank is None else f"{said}-{self.rank}"


@dataclass(frozen=True)
class Trial:
    """What one kind came to: its error on validation, its pack's size."""

    kind: Kind
    error: float
    bytes: int
    step: int
    seconds: float

    def to_json(self, trunk: int) -> dict[str, Any]:
        """As results list it; `trunk`: that one's bytes."""
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
class Ground:
    """All that the trials of one growth have in common."""

    model: Universal  # in use; never changed here
    domain: Domain
    growth: AddRecipe
    run: RunFolder
    logger: Logger
    device: torch.device
    old: Pack | None = None  # of an update: the version before
    begun: Pack | None = None  # and what its successor starts from

    def __post_init__(self) -> None:
        self.tried: dict[str, Any] = self._read()

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.run.path / f"{TRIED}.json").read_bytes())
        except FileNotFoundError:
            found = {}
        return found

    def worker(self, kind: Kind) -> Universal:
        """A worker of this kind whose slots stand where they start."""
        card = Card.of(self.domain, card_adapters(kind.name), kind.rank)
        provenance = {"batch": self.growth.domain.batch or self.growth.train.batch}
        worker = make_worker(self.model, card.with_record(provenance, {}), self.growth.seed)
        worker.to(self.device)
        check_own(worker, card.name, kind.name)
        self._start(worker)
        scale_heads(worker, self.domain)
        return worker

    def _start(self, worker: Universal) -> None:
        """Found once, for the slots that every kind has; an update goes on from its old pack."""
        if self.begun is not None:
            carry(worker, self.begun)
            return
        asked, seed = self.growth.add.start, self.growth.seed
        key = "start" if not _adapted(worker, self.domain.name) else "start, adapted"
        if key in self.tried:
            starts.again(worker, self.model, self.domain, self.tried[key], seed)
            return
        found = starts.choose_start(worker, self.model, self.domain, asked, seed)
        if found.errors:
            say(f"{self.domain.name} {found.said}")
        self.lwf(key, found.to_json())

    def lwf(self, key: str, value: Mapping[str, Any]) -> None:
        """This is done, whatever comes."""
        self.tried[key] = dict(value)
        self.run.write(f"{TRIED}.json", self.tried)

    # -- one kind

    def train_of(self, worker: Universal, domain: Domain, train: Train) -> Train:
        """The settings with the decay that suits the adapters' size."""
        factor = self.growth.add.decay
        if factor is None:
            factor = decay_factor(adapter_numbers(worker, domain.name), len(domain.train))
        return train.model_copy(update={"weight_decay": (train.weight_decay or 0.0) * factor})

    def learn(
        self, worker: Universal, kind: Kind, part: str, domain: Domain, train: Train
    ) -> Selection:
        """Through the loop, into a part of this run; goes on where a killed one ended."""
        self._rewind(part)
        seed, name = self.growth.seed, domain.name
        if kind.name == "none":
            return fit_heads(
                worker,
                [domain],
                train,
                self.run,
                self.logger,
                part=part,
                device=self.device,
                seed=seed,
            )
        learn_own(worker, name)
        settings = self.train_of(worker, domain, train)
        return fit(
            worker,
            [domain],
            settings,
            self.run,
            self.logger,
            part=part,
            device=self.device,
            seed=seed,
        )

    def _rewind(self, part: str) -> None:
        """Cut lines that came after what is remembered."""
        saved = self.run.last(part)
        if saved is None and self.tried.get("lines"):
            saved = Saved(0, self.run.path, {"metrics_bytes": self.tried["lines"]["bytes"]})
        self.run.rewind(saved)

    def clear(self, part: str) -> None:
        """A part is done and remembered: its checkpoints go."""
        path = self.run.path / "metrics.jsonl"
        self.lwf("lines", {"bytes": path.stat().st_size if path.exists() else 0})
        shutil.rmtree(self.run.path / CHECKPOINTS / part, ignore_errors=True)

    def trial(self, kind: Kind) -> Trial:
        """Learn this kind on train, chosen by validation; its pack is kept aside."""
        part = kind.label
        if (done := self.tried.get(part)) is not None:
            return Trial(kind, **done)
        began = time.monotonic()
        worker = self.worker(kind)
        chosen = self.learn(worker, kind, part, self.domain, self.growth.train)
        return self.keep(worker, kind, chosen.score, chosen.step, time.monotonic() - began)

    def keep(self, worker: Universal, kind: Kind, error: float, step: int, seconds: float) -> Trial:
        """The worker's pack goes aside, and what it came to is remembered."""
        pack = worker.eval().pack(self.domain.name)
        path = self.pack_path(kind)
        path.parent.mkdir(exist_ok=True)
        with self.run.writing(path.name):
            pack.save(path)
        done = Trial(kind, error, size_of(pack), step, round(seconds, 3))
        fields = {key: getattr(done, key) for key in ("error", "bytes", "step", "seconds")}
        self.lwf(kind.label, fields)
        self.clear(kind.label)
        return done

    def pack_path(self, kind: Kind) -> Path:
        """Where a trial's pack lies."""
        return self.run.path / TRIED / f"{kind.label}.pack"

    def tidy(self) -> None:
        """What only a growth that goes on needs."""
        for folder in (TRIED, CHECKPOINTS, FOLDER):
            shutil.rmtree(self.run.path / folder, ignore_errors=True)
        (self.run.path / f"{TRIED}.json").unlink(missing_ok=True)


def size_of(pack: Pack) -> int:
    """Bytes of a pack's tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in pack.tensors.values())


def bytes_of(model: Universal) -> int:
    """Of the trunk, which all share."""
    return sum(t.numel() * t.element_size() for t in model.trunk.shared().values())


def with_record(pack: Pack, provenance: Mapping[str, Any], scores: Mapping[str, Any]) -> Pack:
    """The same pack with another history."""
    return replace(pack, card=pack.card.with_record(provenance, scores))


def _adapted(worker: Universal, name: str) -> bool:
    return adapter_numbers(worker, name) > 0
