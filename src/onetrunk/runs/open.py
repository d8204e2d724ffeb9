"""Read a run's folder: its recipe, model, domains, scores and the versions of its packs.

```
RUN/recipe.toml  scores.json  outcomes.safetensors    of the training; never changed once finished
RUN/model/                   the trunk and the packs in use; domains.json lists them
RUN/added/NAME/              the record of a domain that was added or changed after the training
RUN/splits.safetensors       which images are in which split, where this was decided by hash; also
                             in added/NAME. New images of a source never move the others.
```

Scores are stored once: those of the training in `scores.json`, and those of a domain that was added
or changed later in `added/NAME/scores.json`. `Run.scores` merges them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from onetrunk.config import Recipe
from onetrunk.config.add_recipe import added_domain, read_add_recipe
from onetrunk.data.domain import Domain
from onetrunk.data.domain_settings import DomainSettings
from onetrunk.data.kept_splits import ADDED, splits_of
from onetrunk.data.sources import PYTHON
from onetrunk.data.splitting import SPLITS as DATA_SPLITS
from onetrunk.data.stratified import KnownSplits
from onetrunk.display import Described, Summary, plural, scaled
from onetrunk.errors import BadInput, OnetrunkError, shorten
from onetrunk.eval.budget import Budget, Cost, DomainCost
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.table import Table
from onetrunk.nn.model_files import PACKS, TRUNK, listed, network_names, saved_normalization
from onetrunk.nn.normalization import stats_of
from onetrunk.nn.pack import Pack
from onetrunk.nn.saving import load, models_of
from onetrunk.nn.universal import Universal
from onetrunk.objects import Trust, check_trusted, trusted_modules, trusting
from onetrunk.runs.pack_history import RELABELED, current_class
from onetrunk.store.checkpoint import steps
from onetrunk.store.results import no_model
from onetrunk.store.run_folder import CHECKPOINTS, RECIPE, SCORES, shell

MODEL, HISTORY = "model", "history"
OUTCOMES = "outcomes.safetensors"
SPLITS = ("val", "test")  # with a table in scores.json
BY_DOMAIN = ("splits", "bad", "own_best", "added")  # tables of scores.json with a key per domain

Models = Mapping[str, Universal]  # one network under "", or one per domain under its name
State = Literal["finished", "unfinished", "model"]


class Run(Described):
    """A run's folder, or a folder of `onetrunk.save`.

    Each property is read when it is first used, and models and domains are then cached: open the
    folder again after a domain was added, updated or removed.

    Args:
        folder: The folder.
        models: Its networks, if they are in memory.
        domains: Domains to use in place of those of the same name that the folder describes, for
            example those whose images were given in Python.
        trust: Modules whose code the folder may name: those of users' heads, norms, adapters and
            sources. No other is imported.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        models: Models | None = None,
        *,
        domains: Sequence[Domain] = (),
        trust: Trust = (),
    ) -> None:
        self.folder = Path(folder)
        if models is None and not self.folder.is_dir():
            raise no_model(self.folder)
        self.trust = trusted_modules(trust)
        self._given = {domain.name: domain for domain in domains}
        if domains:
            self._check_given()
        if models is not None:
            self.__dict__["models"] = dict(models)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _check_given(self) -> None:
        """Raise BadInput for a domain that the run does not have."""
        for name in self._given:
            if name not in self.names:
                raise BadInput(
                    f"{self.folder} has no such domain",
                    got=name,
                    available=self.names,
                    try_=f"ot.add({str(self.folder)!r}, domain)",
                )

    def summary(self) -> Summary:
        """Return the training and the domains, from files alone: no network is built."""
        return run_summary(self)

    # -- settings and state

    @property
    def state(self) -> State:
        """`finished`, `unfinished`, or `model` for a folder of `onetrunk.save` (no recipe)."""
        if not (self.folder / RECIPE).is_file():
            return "model"
        finished = (self.folder / SCORES).is_file() and (self.folder / MODEL).is_dir()
        return "finished" if finished else "unfinished"

    @cached_property
    def recipe(self) -> Recipe | None:
        """The recipe of the training; None in a folder of `onetrunk.save`."""
        return Recipe.read(self.folder) if (self.folder / RECIPE).is_file() else None

    @property
    def last_step(self) -> int:
        """The step of the latest checkpoint; 0 without one."""
        top = self.folder / CHECKPOINTS
        names = [] if self.recipe is None else [part.name for part in self.recipe.domains]
        places = [top, *(top / name for name in names)]
        return max((step for place in places for step in steps(place)), default=0)

    def check_shared_trunk(self) -> Path:
        """Return the folder of the model, if domains can be added to it.

        BadInput is raised unless the run is finished and has one network.
        """
        place = self.folder / MODEL
        if self.state == "unfinished":
            raise BadInput(
                f"the run {self.folder} is not finished: its trunk still changes",
                try_=f"onetrunk train {shell(self.folder / RECIPE)} --resume",
            )
        if not place.is_dir():
            raise no_model(self.folder)
        if not (place / TRUNK).is_file():
            raise BadInput(
                f"{self.folder} has one network per domain, and no trunk for a new domain to share",
                try_="train a run with sharing = 'deep', and add the domain to that run",
            )
        return place

    def check_shares_trunk(self, name: str) -> None:
        """Raise BadInput for a domain with a network of its own beside the shared one."""
        place = self.folder / MODEL
        if (place / TRUNK).is_file() and name in network_names(place):
            raise BadInput(
                f"{name} has a network of its own in {self.folder}, which cannot be changed alone",
                got=name,
                available=listed(place),
                try_="onetrunk unify with the changed images, in another folder",
            )

    # -- networks

    @cached_property
    def models(self) -> Models:
        """One network under the name "", or one per domain under its name; in evaluation mode.

        `onetrunk unify` may write both: one network, and own networks of some domains.
        """
        with trusting(self.trust):
            if (self.folder / MODEL / TRUNK).is_file():
                own = network_names(self.folder / MODEL)
                return {"": load(self.folder)} | {n: load(self.folder, n) for n in own}
            return models_of(self.folder)

    @property
    def model(self) -> Universal:
        """The network that domains share, or the only one; `models` has those of specialists."""
        if "" in self.models:
            return self.models[""]
        if len(self.models) > 1:
            raise BadInput("this run has one network per domain", available=self.models)
        return next(iter(self.models.values()))

    @property
    def networks(self) -> dict[str, Universal]:
        """The network of each domain, by its name."""
        return {name: model for model in self.models.values() for name in model.domains}

    def network(self, name: str) -> Universal:
        """Return the network of one domain; the other specialists are not read."""
        if "models" in self.__dict__ or shared_model_names(self.folder) is not None:
            return self.networks[name]
        return load(self.folder, name, trust=self.trust)

    @property
    def names(self) -> list[str]:
        """The names of the domains, in order: those of the model, or else of the recipe."""
        shared = shared_model_names(self.folder)
        if shared is not None:
            return shared
        if (self.folder / MODEL).is_dir():
            return network_names(self.folder / MODEL)
        if self.recipe is None:
            raise no_model(self.folder)
        return [part.name for part in self.recipe.domains]

    def pack_path(self, name: str) -> Path:
        """Return the file of a domain's pack in the model in use."""
        top = self.folder / MODEL
        shared = top / PACKS / f"{name}.pack"
        return shared if shared.is_file() else top / name / PACKS / f"{name}.pack"

    def versions(self, name: str) -> list[int]:
        """Return the numbers of the earlier versions of a domain's pack, ascending."""
        top = self.folder / HISTORY / name
        names = [path.name for path in top.iterdir()] if top.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())

    # -- domains

    @cached_property
    def domains(self) -> dict[str, Domain]:
        """The domains whose images are known, by name, in the order of the model.

        Domains that were imported as packs, and those whose images were given in Python, are left
        out; the argument `domains` brings the latter back.
        """
        found: dict[str, Domain] = {}
        if self.recipe is not None:
            found = {domain.name: domain for domain in self.recipe.make_domains()}
        for name, place in self.added_folders.items():
            found[name] = added_domain(place)
        found = {n: d for n, d in found.items() if not d.settings.source.startswith(f"{PYTHON}:")}
        expected = stats_of(saved_normalization(self.folder))
        for domain in found.values():
            domain.expect(expected)
        found |= {name: domain for name, domain in self._given.items() if name in self.names}
        with trusting(self.trust):
            for name, domain in found.items():
                self._check_trusted(name, domain)
        found = {name: domain.keeping(self.kept_splits(name)) for name, domain in found.items()}
        names = shared_model_names(self.folder)
        if not names:
            return found
        return {name: self._relabeled(found[name]) for name in names if name in found}

    @property
    def domain_settings(self) -> dict[str, DomainSettings]:
        """The settings that domains were trained with, also where their images are not known."""
        found = {part.name: part for part in self.recipe.domains} if self.recipe else {}
        for name, folder in self.added_folders.items():
            found[name] = read_add_recipe(folder).domain
        return {name: part for name, part in found.items() if name in self.names}

    def kept_splits(self, name: str) -> KnownSplits:
        """The splits of a domain's images that were decided by hash when it was trained last."""
        return splits_of(self.folder, name)

    def no_images(self, names: Iterable[str] | None = None) -> BadInput:
        """Return the error for domains whose images are not known, by default all.

        Args:
            names: Domains that are not in `domains`.
        """
        wanted = self.names if names is None else list(names)
        python = [name for name in wanted if name not in self._imported]
        if not python:
            return BadInput(
                f"{', '.join(wanted)}: added from a pack file, so its images are unknown",
                got=wanted[0],
                available=self.domains,
                try_=f"onetrunk predict {shell(self.folder)} IMAGE --domain {wanted[0]}",
            )
        return BadInput(
            f"{', '.join(python)}: its images were given in Python and are not stored in the run",
            got=python[0],
            available=self.domains,
            try_=f"give them again in Python: ot.Run({str(self.folder)!r}, domains=[ot.Domain("
            f"{python[0]!r}, …)]), ot.evaluate, or ot.report(…, domains=…)",
        )

    @property
    def _imported(self) -> set[str]:
        """The domains that were added from a pack file."""
        recipe = set() if self.recipe is None else {part.name for part in self.recipe.domains}
        return {name for name in self.names if name not in recipe | self.added_folders.keys()}

    def _check_trusted(self, name: str, domain: Domain) -> None:
        """Raise BadInput if the folder names a source that the user has not allowed."""
        source = domain.settings.objects.get("source")
        if source is not None and name not in self._given:
            check_trusted(source, f"source of {name}", f"the run {self.folder}")

    @property
    def added_folders(self) -> dict[str, Path]:
        """The folders of the domains that were added and whose images are known, by name."""
        top = self.folder / ADDED
        paths = sorted(top.iterdir()) if top.is_dir() else []
        return {p.name: p for p in paths if p.name[0] != "." and (p / RECIPE).is_file()}

    @property
    def readable_domains(self) -> dict[str, Domain]:
        """`domains` without those whose settings cannot be read."""
        try:
            return self.domains
        except OnetrunkError:
            found = {name: d for name, d in self._given.items() if name in self.names}
            for name, place in self.added_folders.items():
                try:
                    domain = self._relabeled(added_domain(place).keeping(self.kept_splits(name)))
                    with trusting(self.trust):
                        self._check_trusted(name, domain)
                except OnetrunkError:
                    continue
                if not domain.settings.source.startswith(f"{PYTHON}:"):
                    found.setdefault(name, domain)
            return found

    def _relabeled(self, domain: Domain) -> Domain:
        """Return the domain with the classes of its pack, if they were renamed or dropped.

        If the folders of its source were renamed as well, the domain is returned unchanged.
        """
        record = read_json(self.folder / ADDED / domain.name / SCORES)
        if record.get("added", {}).get("event") != RELABELED:
            return domain
        card = Pack.open(self.pack_path(domain.name)).card
        wanted = {task.name: set(task.classes) for task in card.tasks}
        try:
            classes = {task.name: set(task.classes) for task in domain.tasks if not task.dense}
        except OnetrunkError:
            return domain
        if all(wanted.get(name, own) == own for name, own in classes.items()):
            return domain
        names = {c: current_class(card, c) for own in classes.values() for c in own}
        return domain.renamed(names, card.tasks)

    # -- scores

    @property
    def scores(self) -> dict[str, Any]:
        """The scores of all domains of the model, in the format of `scores.json`."""
        return read_scores(self.folder)

    @property
    def table(self) -> Table:
        """The scores on the test split."""
        scores = self.scores
        if "test" not in scores:
            if self.state == "unfinished":
                raise no_model(self.folder)
            raise BadInput(
                f"{self.folder} has no scores", try_="ot.evaluate(run.model, domains) for new ones"
            )
        return Table.from_json(scores["test"])

    @property
    def outcomes(self) -> Outcomes | None:
        """The outcomes of the test images, from which scores are computed; None without them."""
        return read_outcomes(self.folder)

    def record(self, name: str) -> dict[str, Any]:
        """Return the record of one domain: its part of the scores, and how it was added."""
        return read_record(self.folder, name)


def run_summary(run: Run) -> Summary:
    """Return the training and the domains of a run; what cannot be read is left out or named."""
    facts: list[tuple[str, str]] = [("state", run.state)]
    rows: list[Sequence[str]] = []
    try:
        if (recipe := run.recipe) is not None:
            facts.append(("recipe", f"{recipe.name}, {recipe.trunk.arch}, seed {recipe.seed}"))
        if run.state == "unfinished":
            facts += [
                ("last checkpoint", f"step {run.last_step:,}"),
                ("domains", shorten(run.names)),
            ]
            return Summary(repr(run), facts)
        packs = {name: Pack.open(run.pack_path(name)) for name in run.names}
        trunks = {pack.sha256: str(pack.trunk.get("arch")) for pack in packs.values()}
        facts += [("trunk", f"{arch}, SHA-256 {sha256[:12]}…") for sha256, arch in trunks.items()]
        files = [path for path in (run.folder / MODEL).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        facts.append(("model", f"{plural(len(packs), 'domain')}, {scaled(size, 'B')}"))
        scores = run.scores
        table = Table.from_json(scores["test"]) if "test" in scores else Table((), "test")
        tested = {(row.domain, row.task): f"{row.metric} {row.text}" for row in table.headlines()}
        for name, pack in packs.items():
            images = scores.get("splits", {}).get(name, {})
            counts = ", ".join(f"{s} {images[s]:,}" for s in DATA_SPLITS if s in images)
            own = (pack.card.adapters, scaled(run.pack_path(name).stat().st_size, "B"), counts)
            for place, task in enumerate(pack.card.tasks):
                first = (name, *own) if place == 0 else ("", "", "", "")
                score = tested.get((name, task.name), "")
                rows.append((first[0], task.name, task.labels, score, *first[1:]))
    except (OnetrunkError, OSError) as error:
        facts.append(("cannot be read", str(error)))
    columns = ("domain", "task", "labels", "test", "adapters", "pack", "images")
    return Summary(repr(run), facts, columns, rows)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON document of a run; it is empty if there is no such file."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"cannot read {path}", got=str(error)[:100]) from None
    if not isinstance(document, dict):
        raise BadInput(f"cannot read {path}: expected an object", got=type(document).__name__)
    return document


def shared_model_names(folder: Path) -> list[str] | None:
    """Return the domains of a folder with a shared network, and then those with their own.

    None: each domain has its own network, or there is none.
    """
    place = folder / MODEL
    return [*listed(place), *network_names(place)] if (place / TRUNK).is_file() else None


def read_scores(folder: Path) -> dict[str, Any]:
    """Return the scores of a run, with the domains that its model has now.

    They are empty for an unfinished run and for a folder of `onetrunk.save`.
    """
    scores = read_json(folder / SCORES)
    names = shared_model_names(folder)
    if not scores or names is None or not _changed(folder, scores.get("splits", names), names):
        return scores
    records = [_record(folder, name, scores) for name in names]
    for split in SPLITS:
        tables = [Table.from_json(record[split]) for record in records if split in record]
        rows = tuple(row for table in tables for row in table.rows)
        scores[split] = Table(rows, split).to_json()
    for key in BY_DOMAIN:
        table = {record["domain"]: record[key] for record in records if key in record}
        if table or key in scores:
            scores[key] = table
    budget = scores.get("budget", {}).get("")
    if budget is not None:
        costs = [record["cost"] for record in records if "cost" in record]
        scores["budget"][""] = _budget(budget, costs)
    return scores


def read_outcomes(folder: Path) -> Outcomes | None:
    """Return the outcomes of a run's test images, for the domains that its model has now."""
    path = folder / OUTCOMES
    trained = Outcomes.open(path) if path.is_file() else None
    names = shared_model_names(folder)
    if trained is None or names is None or not _changed(folder, trained.image_digests, names):
        return trained
    each = [domain_outcomes(folder, name, trained) for name in names]
    known = [outcomes for outcomes in each if outcomes is not None]
    parts = {key: part for outcomes in known for key, part in outcomes.tasks.items()}
    digests = {name: d for outcomes in known for name, d in outcomes.image_digests.items()}
    return Outcomes(trained.split, parts, digests)


def read_record(folder: Path, name: str) -> dict[str, Any]:
    """Return the record of one domain; without scores, it has little more than the name."""
    return _record(folder, name, read_json(folder / SCORES))


def domain_outcomes(folder: Path, name: str, trained: Outcomes | None = None) -> Outcomes | None:
    """Return the outcomes of one domain; None without any, and for a damaged file."""
    place = folder / ADDED / name
    try:
        if place.is_dir():
            return Outcomes.open(place / OUTCOMES) if (place / OUTCOMES).is_file() else None
        if trained is None and (folder / OUTCOMES).is_file():
            trained = Outcomes.open(folder / OUTCOMES)
    except OnetrunkError:
        return None
    if trained is None or name not in trained.image_digests:
        return None
    parts = {key: part for key, part in trained.tasks.items() if key[0] == name}
    return Outcomes(trained.split, parts, {name: trained.image_digests[name]})


def _changed(folder: Path, trained: Iterable[str], names: Sequence[str]) -> bool:
    """Return whether domains were added, changed or removed since the training."""
    return {*trained} != {*names} or any((folder / ADDED / name).is_dir() for name in names)


def _record(folder: Path, name: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record in the domain's folder, or its part of the scores of the training."""
    place = folder / ADDED / name
    if place.is_dir():
        return {"format": 1, "domain": name, **read_json(place / SCORES)}
    record: dict[str, Any] = {"format": 1, "domain": name}
    for split in SPLITS:
        if split in scores:
            rows = Table.from_json(scores[split]).rows
            record[split] = Table(tuple(r for r in rows if r.domain == name), split).to_json()
    for key in BY_DOMAIN:
        if name in scores.get(key, {}):
            record[key] = scores[key][name]
    for cost in scores.get("budget", {}).get("", {}).get("domains", []):
        if cost["name"] == name:
            record["cost"] = cost
    return record


def _budget(trained: Mapping[str, Any], costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the budget of the trunk with these domains."""
    domains = tuple(
        DomainCost(d["name"], tuple(d["size"]), Cost(**d["own"]), Cost(**d["alone"])) for d in costs
    )
    return Budget(trained["arch"], Cost(**trained["shared"]), domains).to_json()
