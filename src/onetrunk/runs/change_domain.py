"""Settings, locking and results that are common to adding and updating a domain of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from onetrunk.config.add_recipe import (
    DEFAULT_ADAPTERS,
    AddRecipe,
    base_from,
    merged_train,
    read_add_recipe,
    train_like,
)
from onetrunk.config.from_python import table_of
from onetrunk.data.domain import Domain
from onetrunk.display import Described, Summary
from onetrunk.errors import BadInput
from onetrunk.eval.table import Table
from onetrunk.nn.pack import Pack
from onetrunk.nn.saving import load
from onetrunk.nn.universal import Universal
from onetrunk.objects import modules_of, trusting
from onetrunk.runs import pack_store
from onetrunk.runs.open import Run
from onetrunk.runs.train_domain import is_few, say_notes, train_domain
from onetrunk.runs.unchanged import Unchanged
from onetrunk.store.run_folder import SCORES, RunFolder, shell
from onetrunk.train.device import choose_device
from onetrunk.train.fewshot.schedule import few_train


@dataclass(frozen=True, repr=False)
class DomainResult(Described):
    """A domain that was added, updated or imported.

    Attributes:
        name: The name of the domain.
        model: The network with the domain.
        record: The scores, the attempts, the size, and the check of the other domains.
        folder: The folder of the run; None for a network in memory.
    """

    name: str
    model: Universal
    record: Mapping[str, Any]
    folder: Path | None = None

    def summary(self) -> Summary:
        """Return what was added, the check of the other domains, and the scores on test."""
        card = self.model.domains[self.name]
        facts = [("adapters", card.adapters)]
        if self.folder is not None:
            facts.append(("run", str(self.folder)))
        if "unchanged" in self.record:
            facts.append(("other domains", str(self.unchanged)))
        table = self.table.summary() if "test" in self.record else Summary("")
        return Summary(f"DomainResult({self.name!r})", facts, table.columns, table.rows)

    @property
    def table(self) -> Table:
        """The scores of the domain on its test split."""
        return Table.from_json(self.record["test"])

    @property
    def unchanged(self) -> Unchanged:
        """The fingerprints of all other domains, which are equal before and after."""
        return Unchanged.from_json(self.record["unchanged"])

    @property
    def pack(self) -> Pack:
        """The pack of the domain."""
        return self.model.pack(self.name)


@dataclass(frozen=True)
class Prepared:
    """The network in use, the domain and all settings of a training; for an update also packs."""

    model: Universal
    domain: Domain
    recipe: AddRecipe
    old: Pack | None = None
    start: Pack | None = None


def train_into_run(
    folder: Path,
    domain: Domain,
    event: str,
    prepare: Callable[[Run, Path], Prepared],
    *,
    command: str,
    resume: bool,
    device: str | torch.device | None,
) -> DomainResult:
    """Train a domain and publish its pack in a run, under the run's lock.

    Args:
        folder: The run.
        domain: The domain that is added or updated.
        event: "added" or "updated".
        prepare: Called with the locked run and the folder to train in; checks the request.
        command: The command that continues an interrupted training, for messages.
        resume: Continue an interrupted training.
        device: Where to train; None: a GPU if there is one.
    """
    name, place = domain.name, choose_device(device)
    Run(folder).check_shared_trunk()
    own = modules_of(domain.settings.objects.values())  # the user names them in this call
    with trusting(own), RunFolder.hold(folder, command) as held:
        work = folder / pack_store.ADDING / name
        if not _is_trained(work, domain):
            domain.check_classes()  # decodes nothing
            run = Run(folder)
            todo = prepare(run, work)
            few = todo.old is None and is_few(todo.model, todo.domain, todo.recipe.add.few)
            say_notes(todo.domain, few)
            train_domain(
                todo.model, todo.domain, todo.recipe, work, event, run.readable_domains, place,
                command=command, resume=resume, old=todo.old, start=todo.start,
            )  # fmt: skip
        pack_store.publish(held, name)
        return DomainResult(name, load(folder), Run(folder).record(name), folder)


def _is_trained(work: Path, domain: Domain) -> bool:
    """Return whether the domain is trained but not published, as the process was killed."""
    if not (work / SCORES).exists():
        return False
    available, source = read_add_recipe(work).domain.source, table_of(domain)["source"]
    if available != source:
        raise BadInput(
            f"{work} contains {domain.name}, trained on {available} and not in use yet",
            got=source,
            try_=f"the same command with {shell(available)}, or remove {shell(work)}",
        )
    return True


def make_recipe(
    model: Universal,
    domain: Domain,
    seed: int,
    owned: Mapping[str, Any],
    train: Mapping[str, Any],
    *,
    run: Run | None = None,
    work: Path | None = None,
    version: int = 1,
    default_train: Mapping[str, Any] | None = None,
) -> AddRecipe:
    """Return all settings of a domain that is added or updated.

    Args:
        model: The network in use.
        domain: The domain.
        seed: The seed of all random numbers.
        owned: Keys of [add]; None: the default.
        train: Keys of [train] that the user set.
        run: The run whose [train] is the default.
        work: The folder of the recipe; relative paths start from it.
        version: The version of the pack.
        default_train: The complete [train] table, in place of the run's.
    """
    add = {key: value for key, value in owned.items() if value is not None}
    if default_train is not None:
        merged = dict(default_train)
    elif run is not None:
        merged = merged_train(train, train_like(run.folder, len(model.domains)))
    else:
        merged = dict(train)
    few = is_few(model, domain, add.get("few", "auto"))
    add.setdefault("adapters", "auto" if few else DEFAULT_ADAPTERS)
    if few:
        merged = few_train(train, merged, len(domain.train) + len(domain.val))
    return AddRecipe.of(
        {
            "seed": seed,
            "version": version,
            "trunk": model.trunk.fingerprint(),
            "base": base_from(domain.base, work or Path()),
            "add": add,
            "domains": [table_of(domain)],
            "train": merged,
        }
    )


def command_for(verb: str, run: Path, domain: Domain) -> str:
    """Return the command that continues an interrupted addition or update."""
    return f"onetrunk {verb} {shell(run)} {domain.name} {source_text(domain)} --resume"


def source_text(domain: Domain) -> str:
    """Return the source as typed in a command; SOURCE stands for a Python object."""
    return shell(domain.source) if isinstance(domain.source, str) else "SOURCE"
