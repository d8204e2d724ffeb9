"""Several teachers of one domain: their mean, PHI-S, and teachers that are left out of steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
from onetrunk.testing.feature_losses import noise
from onetrunk.train.distill.foreign import Foreign, ForeignTeacher
from onetrunk.train.distill.standardize import (
    Standardizer,
    equalizing_rotation,
    hadamard,
    phi_s,
    plane_rotations,
)
from onetrunk.train.distill.targets import Targets, share_a_task
from onetrunk.train.distill.teachers import Specialist
from tests.helpers.fakes import dense_source
from tests.helpers.worlds import learner, network, specialists, worlds


@pytest.mark.parametrize("width", [1, 2, 4, 12, 16, 20, 24, 64, 384, 768])
def test_hadamard_matrices_are_orthogonal(width: int) -> None:
    h = hadamard(width)
    assert h is not None
    np.testing.assert_allclose(np.abs(h), 1 / math.sqrt(width), rtol=1e-12)
    np.testing.assert_allclose(h @ h.T, np.eye(width), atol=1e-12)


@pytest.mark.parametrize("width", [3, 5, 6, 7, 10, 36, 100])
def test_other_widths_use_rotations_that_equalize_variances(width: int) -> None:
    assert hadamard(width) is None
    variances = np.exp(np.random.default_rng(0).normal(size=width) * 2)
    for made in (plane_rotations(variances), equalizing_rotation(variances)):
        np.testing.assert_allclose(made @ made.T, np.eye(width), atol=1e-10)
        np.testing.assert_allclose(
            np.diag(made @ np.diag(variances) @ made.T), variances.mean(), rtol=1e-9
        )
    assert plane_rotations(np.ones(width)).tolist() == np.eye(width).tolist()
    skewed = np.array([1.0] + [0.0] * (width - 1))  # all variance in one axis
    made = plane_rotations(skewed)
    np.testing.assert_allclose(np.diag(made @ np.diag(skewed) @ made.T), 1 / width, rtol=1e-9)


@pytest.mark.parametrize("width", [5, 16])
def test_phi_s_is_a_scaled_rotation(width: int) -> None:
    x = noise((400, width), 0) @ noise((width, width), 1) + 3
    mean = x.mean(0)
    covariance = (x - mean).T @ (x - mean) / len(x)
    made = phi_s(covariance)
    y = (x - mean) @ made.T
    torch.testing.assert_close(y.square().mean(0), torch.ones(width).double())
    alpha = 1 / torch.linalg.eigvalsh(covariance).mean().sqrt()  # as in the paper
    square = made @ made.T
    torch.testing.assert_close(square, alpha**2 * torch.eye(width).double())
    constant = phi_s(torch.zeros(width, width))
    assert constant.isfinite().all()


def test_maps_are_standardized_per_pixel() -> None:
    maps = noise((3, 4, 2, 5), 0).float()
    for scale in (torch.rand(4), torch.rand(4, 4)):
        one = Standardizer(torch.rand(4), scale)
        rows = maps.movedim(1, -1).reshape(-1, 4)
        torch.testing.assert_close(one(maps).movedim(1, -1).reshape(-1, 4), one(rows))


def guests(domain: Domain, count: int = 2) -> list[ForeignTeacher]:
    found = []
    for i in range(count):
        torch.manual_seed(i)
        net = nn.Conv2d(3, 5 + i, 3)

        def look(x: Tensor, net: nn.Module = net, scale: int = 10**i) -> Tensor:
            features: Tensor = scale * net(x).mean((2, 3))
            return features

        foreign = Foreign(net, look, pixels=Pixels((8, 8)))
        found.append(ForeignTeacher(foreign, domain, [task.name for task in domain.tasks]))
    return found


def test_the_loss_is_the_mean_over_standardized_teachers() -> None:
    domain = worlds("ants")[0]
    both = guests(domain)
    given: dict[str, Any] = {"distill": {"features": "cosine", "teachers": "x"}}
    made = learner([domain], teachers={"ants": both}, **given)
    both_targets = made.distiller.targets["ants"]
    (batch,) = next(made.passes())[0]
    for each in both_targets:
        matrix = each.standardizers["pooled"].scale.double()
        assert matrix.ndim == 2  # PHI-S
        square = matrix @ matrix.T
        eye = torch.eye(len(matrix)).double()
        torch.testing.assert_close(square / square[0, 0], eye, rtol=1e-5, atol=1e-5)
    inside = made.model.joined([batch.images], ["ants"], made.distiller.points)[0]

    def loss() -> float:
        losses = made.distiller.losses(batch, batch.images, inside, 0.0, 0)
        return float(losses["features"].detach())

    mean = loss()
    single = []
    for each in both_targets:
        made.distiller.targets["ants"] = [each]
        single.append(loss())
    assert mean == pytest.approx(sum(single) / 2)
    alone = learner([domain], teachers={"ants": both[:1]}, **given)
    (targets,) = alone.distiller.targets["ants"]
    assert targets.standardizers["pooled"].scale.ndim == 1  # by channel


def test_teachers_of_different_tasks_are_not_standardized() -> None:
    """Three specialists of the same images, each of one task."""
    domain = Domain("rooms", dense_source(8, 16, 16), size=16)
    (teacher,) = specialists([domain])["rooms"]
    tasks = [[t] for t in teacher.tasks]
    model = network([domain])
    each = [Specialist(model.eval(), "rooms", domain, mine, "one") for mine in tasks]
    assert not share_a_task(each) and share_a_task([teacher, each[0]])
    made = learner([domain], teachers={"rooms": each}, distill={"teachers": "x"})
    targets = made.distiller.targets["rooms"]
    assert [list(each.feature_weights) for each in targets] == tasks
    assert not any(each.standardizers for each in targets)


def test_teachers_without_predictions_do_not_dilute_the_others() -> None:
    domain = worlds("ants")[0]
    teachers = [*specialists([domain])["ants"], *guests(domain, 1)]
    given: dict[str, Any] = {"distill": {"features": "none", "teachers": "x"}}
    both = learner([domain], teachers={"ants": teachers}, **given)
    alone = learner([domain], teachers={"ants": teachers[:1]}, **given)
    (batch,) = next(both.passes())[0]
    found = []
    for made in (both, alone):
        inside = made.model.joined([batch.images], ["ants"], made.distiller.points)[0]
        found.append(made.distiller.losses(batch, batch.images, inside, 0.0, 0))
    assert found[0].keys() == found[1].keys() == {"logits"}
    assert found[0]["logits"].equal(found[1]["logits"])


def test_drop_leaves_out_some_teachers_but_never_all() -> None:
    domains = worlds("ants", "bees")
    teachers = {"ants": guests(domains[0], 3), "bees": guests(domains[1], 1)}
    made = learner(
        domains, teachers=teachers, distill={"teachers": "x", "teacher_dropout": 0.5}, seed=4
    )
    three = made.distiller.targets["ants"]

    def present(made: Any, step: int) -> tuple[int, ...]:
        return tuple(three.index(each) for each in made.distiller.present("ants", step))

    steps = [present(made, step) for step in range(2000)]
    assert all(steps) and {len(step) for step in steps} == {1, 2, 3}
    for teacher in range(3):
        share = sum(teacher in step for step in steps) / len(steps)
        assert share == pytest.approx(0.5 + 0.125 / 3, abs=0.04)
    assert [present(made, step) for step in (7, 3)] == [steps[7], steps[3]]
    assert len(made.distiller.present("bees", 0)) == 1  # the only teacher is never left out
    other = learner(
        domains, teachers=teachers, distill={"teachers": "x", "teacher_dropout": 0.5}, seed=5
    )
    three = other.distiller.targets["ants"]
    assert [present(other, step) for step in range(30)] != steps[:30]
    without = learner(domains, teachers=teachers, distill={"teachers": "x"})
    assert len(without.distiller.present("ants", 1)) == 3


def test_aligners_of_left_out_teachers_are_not_updated() -> None:
    domain = worlds("ants")[0]
    made = learner(
        [domain],
        teachers={"ants": guests(domain)},
        distill={"teachers": "x", "teacher_dropout": 0.5},
    )
    moved: list[set[int]] = []
    for step, passes in zip(range(6), made.passes(), strict=False):
        targets = made.distiller.targets["ants"]
        used = made.distiller.present("ants", step)
        present = {i for i, each in enumerate(targets) if each in used}
        before = [weight(each) for each in targets]
        made.step(passes)
        made.clock.tick()
        after = [weight(each) for each in targets]
        pairs = enumerate(zip(before, after, strict=True))
        moved.append({i for i, (a, b) in pairs if not a.equal(b)})
        assert moved[-1] == present
    assert {0, 1} in moved and len({frozenset(m) for m in moved}) > 1


def weight(targets: Targets) -> Tensor:
    (parameter,) = targets.aligners.parameters()
    return parameter.detach().clone()
