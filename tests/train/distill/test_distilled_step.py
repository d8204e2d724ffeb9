"""One training step with teachers: its gradients against the formula, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.train.distill.distiller import annealing_factor
from onetrunk.train.distill.feature_losses.cka import cka
from onetrunk.train.distill.feature_losses.cosine import cosine
from onetrunk.train.distill.feature_losses.l2 import l2
from onetrunk.train.distill.targets import weight_of
from onetrunk.train.distill.teachers import Specialist, class_order
from onetrunk.train.learner import Learner
from onetrunk.train.optimizer import SHARED
from tests.helpers.worlds import learner, network, same, specialists, steps, weights, worlds

LOSSES = {"l2": l2, "cka": cka, "cosine": cosine}


def exact(domains: Sequence[Domain], distill: dict[str, Any], **given: Any) -> Learner:
    """A student in float64; its teachers stay in float32."""
    return learner(
        domains,
        network(domains).double(),
        teachers=specialists(domains),
        distill={"teachers": "x", **distill},
        **given,
    )


def by_hand(made: Learner, batches: list[Any], progress: float) -> dict[str, Tensor]:
    """The gradient of the objective, computed from its formula; keys are those of `named`."""
    s, model = made.distill, made.model
    owner: dict[int, str] = {}
    for name in model.domains:
        owner |= {id(p): name for p in model.parameters_of(name).values()}
        owner |= {id(p): name for p in made.distiller.parameters[name].values()}
    total: dict[str, Tensor] = {}
    for batch in batches:
        name, x = batch.domain, batch.images.double()
        (teacher,) = made.teachers[name]
        assert isinstance(teacher, Specialist)
        with torch.no_grad():
            features, _ = teacher.net.trunk(x.float())
            target = teacher.net(x.float())["classify"].double()
        inside = model.joined([x], [name], {name: ("pooled",)})[0]
        (targets,) = made.distiller.targets[name]
        theirs = features.double()
        if s.features == "cosine":
            theirs = targets.standardizers["pooled"](features).double()
        feature = LOSSES[s.features](targets.aligners[0](inside.features["pooled"]), theirs)
        t = s.temperature
        log = F.log_softmax(inside.predictions["classify"] / t, 1)
        predictions = t * t * F.kl_div(log, F.softmax(target / t, 1), reduction="batchmean")
        label = F.cross_entropy(inside.predictions["classify"], batch.targets["classify"])
        fade = {"none": 1.0, "linear": 1 - progress}[s.annealing]
        loss = s.label_weight * label + fade * (
            weight_of(s.feature_weight, name, "classify") * feature
            + weight_of(s.logit_weight, name, "classify") * predictions
        )
        weight = next(d.weight for d in made.domains if d.name == name)
        for key, parameter in named(made).items():
            (grad,) = torch.autograd.grad(
                weight * loss, parameter, retain_graph=True, allow_unused=True
            )
            if grad is not None and owner.get(id(parameter), SHARED) in (SHARED, name):
                count = 1 if id(parameter) in owner else len(batches)
                total[key] = total.get(key, torch.zeros_like(grad)) + grad / count
    return total


def named(made: Learner) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {
        name: p for name, p in made.model.named_parameters() if p.requires_grad
    }
    for name, mine in made.distiller.parameters.items():
        found |= {f"aligner {name} {key}": p for key, p in mine.items()}
    return found


def step_gradients(made: Learner, passes: Any) -> dict[str, Tensor]:
    """The gradients that the optimizers would receive; no parameter is updated."""
    taken: dict[str, Tensor] = {}

    def record(*_: Any) -> float:
        for name, parameter in named(made).items():
            if parameter.grad is not None:
                taken[name] = parameter.grad.clone()
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made.optimizers, "step", record)
        patch.setattr(made.distiller, "step", lambda *_: None)
        made.step(passes)
    return taken


@pytest.mark.parametrize(
    "distill",
    [
        {"features": "l2"},
        {"features": "cka", "temperature": 2.0},
        {"features": "cosine", "annealing": "linear", "label_weight": 0.25},
        {
            "features": "l2",
            "feature_weight": {"ants": 3.0, "ants/classify": 5.0, "bees": 0.5},
            "logit_weight": {"bees/classify": 0.0, "ants": 2.0},
        },
    ],
    ids=str,
)
def test_gradients_match_the_formula(distill: dict[str, Any]) -> None:
    domains = worlds("ants", "bees", batch=8)
    domains[1].settings = domains[1].settings.model_copy(update={"weight": 2.0})
    made = exact(domains, distill)
    made.clock.step = 2  # a quarter of 8
    passes = next(made.passes())
    batches = [batch for group in passes for batch in group]
    expected = by_hand(made, batches, 0.25)
    made.model.zero_grad()
    found = step_gradients(made, passes)
    assert found.keys() == expected.keys()
    assert any(name.startswith("aligner bees") for name in found)
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-6, atol=1e-10, msg=name)


def test_small_batches_use_cosine_for_cka() -> None:
    """With the standardization that cosine needs."""
    domains = worlds("ants")
    one = exact(domains, {"features": "cka"}, batch=7)
    other = exact(domains, {"features": "cosine"}, batch=7)
    for made in (one, other):
        made.distiller.restore(one.distiller.state())
    passes = next(one.passes())
    assert same(step_gradients(one, passes), step_gradients(other, passes))


def test_weights_by_name() -> None:
    given = {"ants": 2.0, "bees/depth": 3.0}
    assert weight_of(5.0, "ants", "depth") == 5.0
    assert weight_of(given, "ants", "depth") == 2.0
    assert weight_of(given, "bees", "depth") == 3.0
    assert weight_of(given, "bees", "normals") == 1.0
    assert weight_of({"ants": 2.0, "ants/depth": 0.0}, "ants", "depth") == 0.0


def test_annealing() -> None:
    assert [annealing_factor(p, "none") for p in (0.0, 0.5, 1.0)] == [1, 1, 1]
    assert [annealing_factor(p, "linear") for p in (0.0, 0.25, 1.0)] == [1, 0.75, 0]
    assert [annealing_factor(p, "cosine") for p in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.5, 0])
    made = learner(worlds("ants"), teachers=specialists(worlds("ants")),
                   distill={"teachers": "x", "annealing": "linear"})  # fmt: skip
    (batch,) = next(made.passes())[0]
    inside = made.model.joined([batch.images], ["ants"], made.distiller.points)[0]
    start, half, end = (
        made.distiller.losses(batch, batch.images, inside, p, 0) for p in (0.0, 0.5, 1.0)
    )
    for name, loss in start.items():
        assert half[name].item() == pytest.approx(loss.item() / 2)
        assert end[name].item() == 0


def test_teachers_stay_frozen_and_in_evaluation_mode() -> None:
    domains = worlds("ants", "bees")
    teachers = specialists(domains)
    nets = [t.net for mine in teachers.values() for t in mine if isinstance(t, Specialist)]
    assert len(nets) == 2
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in nets]
    made = learner(domains, teachers=teachers, distill={"teachers": "x", "features": "cosine"})
    modes = []
    for net in nets:
        for module in net.modules():
            module.register_forward_pre_hook(lambda m, _: modes.append(m.training))
    for passes in steps(made, 3):
        made.model.train()
        made.step(passes)
    assert modes and not any(modes)
    assert not any(p.requires_grad or p.grad is not None for net in nets for p in net.parameters())
    for net, state in zip(nets, before, strict=True):
        assert same(state, dict(net.state_dict()))
    mine = {id(module) for module in made.model.modules()}
    assert not mine & {id(module) for net in nets for module in net.modules()}


def test_the_order_of_a_teachers_classes_makes_no_difference() -> None:
    domains = worlds("ants", "bees")
    plain = specialists(domains)
    turned: dict[str, Any] = {}
    for domain in domains:
        (one,) = plain[domain.name]
        (task,) = domain.tasks
        order = list(reversed(range(len(task.classes))))
        other = Domain(
            domain.name,
            domain.source,
            [task.with_classes([task.classes[i] for i in order])],
            size=8,
        )
        (twin,) = specialists([other])[domain.name]
        assert isinstance(twin, Specialist) and isinstance(one, Specialist)
        twin.net.load_state_dict(one.net.state_dict())
        head = twin.net.heads.head("classify")
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(parameter[order].clone())
        new_order = class_order(task, other.tasks[0], "twin")
        assert new_order is not None and new_order.tolist() == order
        twin.order = {"classify": new_order}
        twin.converter = one.converter
        turned[domain.name] = [twin]
    found = []
    for teachers in (plain, turned):
        torch.manual_seed(0)
        made = learner(domains, teachers=teachers, distill={"teachers": "x"})
        for passes in steps(made, 3):
            made.step(passes)
        found.append(weights(made.model) | made.distiller.state())
    assert same(*found)


def test_batches_are_given_to_the_teachers_of_their_domain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    domains = worlds("ants", "bees")
    teachers = specialists(domains)
    calls: list[tuple[str, str]] = []
    for name, (teacher,) in teachers.items():
        real = teacher.forward

        def forward(
            images: Tensor, batch: Any, points: Any, name: str = name, real: Any = real
        ) -> Any:
            calls.append((name, batch.domain))
            return real(images, batch, points)

        monkeypatch.setattr(teacher, "forward", forward)
    made = learner(domains, teachers=teachers, distill={"teachers": "x"}, sampling="temperature")
    for passes in steps(made, 5):
        made.step(passes)
    assert len(calls) == 5 and all(teacher == domain for teacher, domain in calls)
