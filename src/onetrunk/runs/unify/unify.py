"""From domains to one network: look, frozen heads, specialists, candidates, choice, result.

The stages are ordinary runs in OUT/stages; `unify.json` holds the plan and the decisions. Each step
is skipped if it is done, so the same call continues after an interruption. Everything is chosen on
validation images. OUT itself becomes the run of the chosen network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from onetrunk.config import Recipe
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, Failed
from onetrunk.eval.evaluate import evaluate_split
from onetrunk.objects import modules_of, trusting
from onetrunk.progress import say
from onetrunk.runs.environment import data_fingerprint
from onetrunk.runs.open import Run
from onetrunk.runs.unify.checks import check_out, check_settings
from onetrunk.runs.unify.choice import Candidate, Scale, choose, lost_domains, to_json
from onetrunk.runs.unify.collect import collect
from onetrunk.runs.unify.costs import measure_costs
from onetrunk.runs.unify.keep import keep
from onetrunk.runs.unify.look import look
from onetrunk.runs.unify.plan import (
    DECODER_STEPS,
    MIN_STEPS,
    REPORT,
    TEACHERS,
    WITH_ADAPTERS,
    Costs,
    Plan,
    Shape,
    make_plan,
    seconds_by_stage,
)
from onetrunk.runs.unify.record import FILE, Record
from onetrunk.runs.unify.stages import (
    ADAPTERS,
    CONTINUED,
    DISTILLED,
    EVALUATIONS,
    FROZEN,
    JOINT,
    SPECIALISTS,
    Stages,
    specialist,
)
from onetrunk.runs.unify.trainer import Trainer
from onetrunk.store.run_folder import LOCK, SCORES
from onetrunk.train.console import duration
from onetrunk.train.device import choose_device
from onetrunk.train.frozen_heads import check_heads
from onetrunk.train.interrupt import Stopped

STAGES = "stages"
RATES = (3e-4, 1e-3, 3e-3)
FirstLook = Callable[[Path, Path], None]
LOWER = 0.3  # factor on the learning rate of stages that start from a trained network


@dataclass(frozen=True)
class Unified:
    """The result of `onetrunk unify`.

    Args:
        folder: The run of the chosen network.
        chosen: The name of its stage.
        stages: The folders of the stages, by name, in the order of their training.
        own: Why some domains have a network of their own, by domain.
        reasons: How the network was chosen.
        seconds: The time of all stages.
    """

    folder: Path
    chosen: str
    stages: dict[str, Path]
    own: dict[str, str]
    reasons: tuple[str, ...]
    seconds: float

    @property
    def run(self) -> Run:
        """The run of the chosen network."""
        return Run(self.folder)


class Unify:
    """The work of one call.

    Args:
        recipe: The recipe of the user; its `out` is the folder of the result.
        domains: Its domains.
        seconds: The time for everything.
        device: "cpu", "cuda", "cuda:1" or "mps"; None: a GPU if there is one.
        command: What continues the work, for messages.
        first_look: Called with the run of the frozen trunk and the folder of the result.
    """

    def __init__(
        self,
        recipe: Recipe,
        domains: Sequence[Domain],
        seconds: float,
        device: str | torch.device | None = None,
        command: str = "",
        first_look: FirstLook | None = None,
    ) -> None:
        check_settings(recipe)
        self.recipe, self.domains, self.seconds = recipe, list(domains), seconds
        self.device = choose_device(device)
        self.folder = recipe.out_folder
        self.first_look = first_look
        self.command = command or "the same call again"
        pretrained = recipe.trunk.pretrained is not False and self._has_linear_heads()
        self.stages = Stages(recipe, self.folder / STAGES, pretrained)
        given = recipe.train.given()
        self.rates = (recipe.train.lr,) if "lr" in given else RATES

    def _has_linear_heads(self) -> bool:
        """Return whether heads on the frozen trunk can be solved."""
        try:
            for model in self.recipe.make_model(self.domains).values():
                check_heads(model)
        except BadInput:
            return False
        return True

    @property
    def names(self) -> list[str]:
        """The names of the domains."""
        return [domain.name for domain in self.domains]

    @property
    def several(self) -> bool:
        """Whether there is anything to unify."""
        return len(self.domains) > 1

    # -- the whole

    def run(self) -> Unified:
        """Do what is left to do."""
        check_out(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise BadInput(
                f"another process is working in {self.folder}", try_="wait until it ends"
            ) from None
        try:
            for line in look(self.domains):
                say(line)
            data = {domain.name: data_fingerprint(domain) for domain in self.domains}
            text = self.recipe.text_in(self.folder)
            self.record = Record(self.folder, text, self.seconds, data, self.command)
            self.trainer = Trainer(self.record, self.rates, self.device)
            return self._guarded()
        finally:
            lock.release()

    def _guarded(self) -> Unified:
        """Work; whatever ends it names the command that continues."""
        try:
            return self._work()
        except (Stopped, KeyboardInterrupt):
            self.record.write()
            raise Failed(
                f"interrupted; what is finished is kept in {self.folder}", try_=self.command
            ) from None
        except Failed as error:
            if error.try_ is None or not error.try_.startswith("onetrunk train"):
                raise
            # the command of a single stage would not go on with the others
            raise Failed(error.expected, got=error.got, try_=self.command) from None

    def _work(self) -> Unified:
        record = self.record
        plan = self.plan()
        if self.stages.pretrained:
            self.frozen(plan)
        self.specialists(plan)
        if self.several:
            self.search(JOINT, plan)
            self.search(DISTILLED, plan)
            self.adapters(plan)
        else:
            say(f"there is only {self.names[0]}, so there is nothing to unify: one network")
        self.choose()
        self.continue_training()
        own = self.own_networks()
        chosen = record.document["chosen"]
        with record.writing():
            keep(
                self.folder,
                self._folder_of(chosen),
                self.stages.path(SPECIALISTS),
                own,
                self._train_of(chosen, plan),
            )
        if not record.document.get("finished"):
            record.write()
            record.document["finished"] = True
        record.write()
        paths = {name: self.stages.path(name) for name in self._finished_stages()}
        return Unified(
            self.folder,
            chosen,
            paths,
            own,
            tuple(record.document["reasons"]),
            float(record.document["used"]),
        )

    def _train_of(self, chosen: str, plan: Plan) -> dict[str, Any]:
        """Return the settings that a domain which is added to the result starts from."""
        stages = self.record.document["stages"]
        searched = (chosen, self.record.document.get("continued", {}).get("of"), DISTILLED, JOINT)
        rates = [stages[name]["lr"] for name in searched if "lr" in stages.get(name, {})]
        given = self.recipe.train.given()
        return {**given, "steps": plan.steps, **({"lr": rates[0]} if rates else {})}

    def _finished_stages(self) -> list[str]:
        order = (FROZEN, SPECIALISTS, JOINT, DISTILLED, ADAPTERS, CONTINUED)
        return [n for n in order if (self.stages.path(n) / SCORES).is_file()]

    # -- the plan

    def plan(self) -> Plan:
        """Return the plan; it is made once, from measured times."""
        kept = self.record.document.get("plan")
        if kept is not None:
            try:
                return Plan(**kept)
            except TypeError:
                raise BadInput(
                    f"{self.folder / FILE} has no valid plan",
                    try_=f"another --out, or remove {self.folder}",
                ) from None
        costs = measure_costs(self.recipe, self.domains, self.device)
        plan = self.planned(costs, self.record.used)
        self.record.document |= {"plan": plan.to_json(), "costs": asdict(costs)}
        self.record.write()
        say_plan(plan, costs)
        return plan

    def planned(self, costs: Costs, used: float = 0.0) -> Plan:
        """Return a plan for the time, or for the number of steps that the user has set."""
        shape = Shape(
            len(self.rates),
            several=self.several,
            frozen=self.stages.pretrained,
            dense=any(task.dense for domain in self.domains for task in domain.tasks),
            continued="steps" not in self.recipe.train.given(),
        )
        if shape.continued:
            return make_plan(costs, self.seconds, shape, used)
        steps = self.recipe.train.steps or 0
        return Plan(steps, seconds_by_stage(costs, steps, shape))

    # -- stages

    def frozen(self, plan: Plan) -> None:
        """Solve heads on the frozen trunk."""
        self._begin(FROZEN, "heads on the frozen trunk", plan.seconds[FROZEN])
        steps = max(MIN_STEPS, round(DECODER_STEPS * plan.steps))
        run = self.trainer.train(self.stages.frozen(steps), self.domains)
        looked = self.record.stage(FROZEN)
        if run is not None and self.first_look is not None and not looked.get("reported"):
            self.first_look(run.folder, self.folder)
            looked["reported"] = True
            self.record.write()

    def specialists(self, plan: Plan) -> None:
        """Train a network for each domain, and put them into one run."""
        self._begin(SPECIALISTS, "one network for each domain", plan.seconds[SPECIALISTS])
        runs = {}
        for domain in self.domains:
            stage = specialist(domain.name)

            def recipe_of(rate: float, name: str = domain.name) -> Recipe:
                return self.stages.specialist(name, rate, plan.steps)

            runs[domain.name] = self.trainer.search(stage, recipe_of, [domain])
        collect(runs, self.stages.specialists())

    def search(self, name: str, plan: Plan) -> None:
        """Train one network for all domains, with the best learning rate."""
        about = {
            JOINT: "one network, trained on the labels of all domains",
            DISTILLED: "one network, distilled from the specialists",
        }
        self._begin(name, about[name], plan.seconds[name])
        make = self.stages.joint if name == JOINT else self.stages.distilled
        self.trainer.search(name, lambda rate: make(rate, plan.steps), self.domains)

    def adapters(self, plan: Plan) -> None:
        """Train the distilled network further, with adapters for each domain."""
        self._begin(ADAPTERS, "adapters for each domain", plan.seconds[ADAPTERS])
        rate = LOWER * self._rate(DISTILLED)
        self.trainer.optional(
            ADAPTERS, self.stages.adapters(rate, plan.adapter_steps), self.domains
        )

    def _rate(self, name: str) -> float:
        return float(self.record.stage(name)["lr"])

    def _begin(self, name: str, about: str, seconds: float) -> None:
        if not (self.stages.path(name) / SCORES).is_file():
            say(f"stage {name}: {about}, about {duration(seconds)}")

    # -- the choice

    def candidate(self, name: str) -> Candidate:
        """Evaluate the networks of a stage on the validation images."""
        run = Run(self.stages.path(name), domains=self.domains, trust=self._trust)
        result = evaluate_split(run.networks, self.domains, "val", device=self.device)
        return Candidate.of(name, bytes_of(run), result)

    @property
    def _trust(self) -> tuple[str, ...]:
        return tuple(modules_of(self.recipe.objects))

    def choose(self) -> None:
        """Choose the one network by validation."""
        document = self.record.document
        if "chosen" in document:
            return
        specialists = self.candidate(SPECIALISTS)
        scale = Scale(specialists)
        names = [n for n in self._finished_stages() if n not in (SPECIALISTS, CONTINUED)]
        candidates = [self.candidate(name) for name in names]
        if not self.several:
            candidates.append(specialists)
        choice = choose(candidates, scale)
        document |= {
            "candidates": to_json([*candidates, specialists], scale),
            "chosen": choice.candidate.name,
            "reasons": list(choice.reasons),
        }
        self.record.write()
        for reason in choice.reasons:
            say(f"choice: {reason}")

    def continue_training(self) -> None:
        """Train the chosen network for the rest of the time, if that is worth it."""
        document = self.record.document
        stage = document.setdefault("continued", {})
        before = document["chosen"]
        if stage.get("done") or before in (FROZEN, CONTINUED):
            return
        if "steps" not in stage:
            stage |= self._rest(before)
            self.record.write()
        if stage["steps"] >= MIN_STEPS:
            self._begin(CONTINUED, f"{before}, trained further", stage["seconds"])
            recipe = Recipe.read(self._folder_of(before))
            rate = LOWER * recipe.train.lr
            more = self.stages.continued(recipe, before, rate, stage["steps"])
            self.trainer.optional(CONTINUED, more, self.domains)
        changes: dict[str, Any] = {"continued": {**stage, "done": True, "of": before}}
        if CONTINUED in self._finished_stages():
            scale = Scale(self.candidate(SPECIALISTS))
            after, old = self.candidate(CONTINUED), self.candidate(before)
            gain = scale.score(old) - scale.score(after)
            longer = f"{stage['steps']} more steps of {before}"
            reason = (
                f"{longer} lower its validation score by {gain:.2f}"
                if gain > 0
                else f"{longer} do not lower its validation score"
            )
            changes |= {
                "reasons": [*document["reasons"], reason],
                "candidates": {**document["candidates"], **to_json([after], scale)},
                "chosen": CONTINUED if gain > 0 else before,
            }
        document |= changes
        self.record.write()

    def _folder_of(self, name: str) -> Path:
        """Return the folder of a stage's run, with its recipe."""
        single = name == SPECIALISTS and not self.several
        return self.stages.path(specialist(self.names[0]) if single else name)

    def _rest(self, chosen: str) -> dict[str, float]:
        """Return the steps for which there is time, and their estimated seconds."""
        costs = Costs(**self.record.document["costs"])
        taught = chosen not in (JOINT, SPECIALISTS)
        step = costs.joint * (TEACHERS if taught else 1.0)
        step *= WITH_ADAPTERS if chosen == ADAPTERS else 1.0
        fixed = (EVALUATIONS + 5) * costs.validation + costs.end + REPORT
        if "steps" in self.recipe.train.given():
            return {"steps": 0, "seconds": 0.0}
        plan = Plan(**self.record.document["plan"])
        left = self.seconds - self.record.used - fixed
        steps = max(0, min(plan.steps, int(left / step)))
        return {"steps": steps, "seconds": steps * step + fixed - REPORT}

    def own_networks(self) -> dict[str, str]:
        """Return the domains that keep their specialists, with the reasons."""
        document = self.record.document
        if "own" not in document:
            own: dict[str, str] = {}
            if self.several:
                specialists = self.candidate(SPECIALISTS)
                one = self.candidate(document["chosen"])
                own = lost_domains(one, specialists, Scale(specialists))
            if self.several and len(own) == len(self.domains):
                reasons = [*document["reasons"], "one network is worse on every domain"]
                document |= {"chosen": SPECIALISTS, "reasons": reasons}
                own = {}
            document["own"] = own
            self.record.write()
            for name, reason in own.items():
                say(f"{name} keeps its own network: {reason}")
        kept: dict[str, str] = document["own"]
        return kept


def unify_domains(
    recipe: Recipe,
    domains: Sequence[Domain],
    *,
    seconds: float,
    device: str | torch.device | None = None,
    command: str = "",
    first_look: FirstLook | None = None,
) -> Unified:
    """Train, compare and choose; the arguments are those of `Unify`."""
    with trusting(modules_of(recipe.objects)):
        return Unify(recipe, domains, seconds, device, command, first_look).run()


def bytes_of(run: Run) -> int:
    """Return the size of a run's networks on disk."""
    return sum(int(part["universal"]["bytes"]) for part in run.scores["budget"].values())


def say_plan(plan: Plan, costs: Costs) -> None:
    """Print the plan."""
    epochs = plan.steps / costs.epoch
    say(
        f"plan: {plan.steps:,} steps for each network, {epochs:.1f} passes over the largest "
        f"domain; about {duration(plan.total)} in all"
    )
    for name, seconds in plan.seconds.items():
        say(f"  {name}: about {duration(seconds)}")
