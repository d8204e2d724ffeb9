"""Several teachers of one domain: their mean, PHI-S, and steps that one of them misses."""

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
from onetrunk.train.distill.foreign import Foreign, Guest
from onetrunk.train.distill.phi_s import hadamard, level, phi_s, turned
from onetrunk.train.distill.standardize import Standard
from onetrunk.train.distill.targets import together
from onetrunk.train.distill.teachers import Specialist
from tests.helpers.fakes import dense_source
from tests.helpers.worlds import learner, network, specialists, worlds


@pytest.mark.parametrize("width", [1, 2, 4, 12, 16, 20, 24, 64, 384, 768])
def test_hadamard_matrices(width: int) -> None:
    h = hadamard(width)
    assert h is not None
    np.testing.assert_allclose(np.abs(h), 1 / math.sqrt(width), rtol=1e-12)
    np.testing.assert_allclose(h @ h.T, np.eye(width), atol=1e-12)


@pytest.mark.parametrize("width", [3, 5, 6, 7, 10, 36, 100])
def test_where_there_is_none_rotations_level_the_variances(width: int) -> None:
    assert hadamard(width) is None
    variances = np.exp(np.random.default_rng(0).normal(size=width) * 2)
    for made in (level(variances), turned(variances)):
        np.testing.assert_allclose(made @ made.T, np.eye(width), atol=1e-10)
        np.testing.assert_allclose(
            np.diag(made @ np.diag(variances) @ made.T), variances.mean(), rtol=1e-9
        )
    assert level(np.ones(width)).tolist() == np.eye(width).tolist()
    skewed = np.array([1.0] + [0.0] * (width - 1))  # one axis holds it all
    made = level(skewed)
    np.testing.assert_allclose(np.diag(made @ np.diag(skewed) @ made.T), 1 / width, rtol=1e-9)


@pytest.mark.parametrize("width", [5, 16])
def test_phi_s_is_a_rotation_and_one_number(width: int) -> None:
    x = noise((400, width), 0) @ noise((width, width), 1) + 3
    mean = x.mean(0)
    covariance = (x - mean).T @ (x - mean) / len(x)
    made = phi_s(covariance)
    y = (x - mean) @ made.T
    torch.testing.assert_close(y.square().mean(0), torch.ones(width).double())
    alpha = 1 / torch.linalg.eigvalsh(covariance).mean().sqrt()  # as the paper has it
    square = made @ made.T
    torch.testing.assert_close(square, alpha**2 * torch.eye(width).double())
    constant = phi_s(torch.zeros(width, width))
    assert constant.isfinite().all()


def test_standardised_maps_are_standardised_pixels() -> None:
    maps = noise((3, 4, 2, 5), 0).float()
    for scale in (torch.rand(4), torch.rand(4, 4)):
        one = Standard(torch.rand(4), scale)
        rows = maps.movedim(1, -1).reshape(-1, 4)
        torch.testing.assert_close(one(maps).movedim(1, -1).reshape(-1, 4), one(rows))


def guests(domain: Domain, count: int = 2) -> list[Guest]:
    found = []
    for i in range(count):
        torch.manual_seed(i)
        net = nn.Conv2d(3, 5 + i, 3)

        def look(x: Tensor, net: nn.Module = net, loud: int = 10**i) -> Tensor:
            said: Tensor = loud * net(x).mean((2, 3))
            return said

        foreign = Foreign(net, look, pixels=Pixels((8, 8)))
        found.append(Guest(foreign, domain, [task.name for task in domain.tasks]))
    return found


def test_their_mean_counts_and_each_is_standardised() -> None:
    domain = worlds("ants")[0]
    both = guests(domain)
    given: dict[str, Any] = {"distill": {"features": "cosine", "teachers": "x"}}
    made = learner([domain], teachers={"ants": both}, **given)
    one, other = made.distiller.lessons["ants"]
    (batch,) = next(made.passes())[0]
    for lesson in (one, other):
        matrix = lesson.standard["pooled"].scale.double()
        assert matrix.ndim == 2  # PHI-S
        square = matrix @ matrix.T
        eye = torch.eye(len(matrix)).double()
        torch.testing.assert_close(square / square[0, 0], eye, rtol=1e-5, atol=1e-5)
    inside = made.model.joined([batch.images], ["ants"], made.distiller.points)[0]

    def found() -> float:
        said = made.distiller.losses(batch, batch.images, inside, 0.0, 0)
        return float(said["features"].detach())

    mean = found()
    apart = []
    for lesson in (one, other):
        made.distiller.lessons["ants"] = [lesson]
        apart.append(found())
    assert mean == pytest.approx(sum(apart) / 2)
    alone = learner([domain], teachers={"ants": both[:1]}, **given)
    (lesson,) = alone.distiller.lessons["ants"]
    assert lesson.standard["pooled"].scale.ndim == 1  # by channel


def test_teachers_of_a_task_each_are_no_ensemble() -> None:
    """As three specialists of one scene: each of its own task, standardised by nothing."""
    domain = Domain("rooms", dense_source(8, 16, 16), size=16)
    (teacher,) = specialists([domain])["rooms"]
    tasks = [[t] for t in teacher.tasks]
    model = network([domain])
    each = [Specialist(model.eval(), "rooms", domain, mine, "one") for mine in tasks]
    assert not together(each) and together([teacher, each[0]])
    made = learner([domain], teachers={"rooms": each}, distill={"teachers": "x"})
    assert [list(lesson.features) for lesson in made.distiller.lessons["rooms"]] == tasks
    assert not any(lesson.standard for lesson in made.distiller.lessons["rooms"])


def test_one_that_does_not_answer_takes_nothing_from_those_that_do() -> None:
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


def test_some_miss_steps_and_never_all() -> None:
    domains = worlds("ants", "bees")
    teachers = {"ants": guests(domains[0], 3), "bees": guests(domains[1], 1)}
    made = learner(
        domains, teachers=teachers, distill={"teachers": "x", "teacher_dropout": 0.5}, seed=4
    )
    three = made.distiller.lessons["ants"]

    def who(made: Any, step: int) -> tuple[int, ...]:
        return tuple(three.index(lesson) for lesson in made.distiller.present("ants", step))

    steps = [who(made, step) for step in range(2000)]
    assert all(steps) and {len(step) for step in steps} == {1, 2, 3}
    for teacher in range(3):
        share = sum(teacher in step for step in steps) / len(steps)
        assert share == pytest.approx(0.5 + 0.125 / 3, abs=0.04)
    assert [who(made, step) for step in (7, 3)] == [steps[7], steps[3]]
    assert len(made.distiller.present("bees", 0)) == 1  # the only one misses nothing
    other = learner(
        domains, teachers=teachers, distill={"teachers": "x", "teacher_dropout": 0.5}, seed=5
    )
    three = other.distiller.lessons["ants"]
    assert [who(other, step) for step in range(30)] != steps[:30]
    whole = learner(domains, teachers=teachers, distill={"teachers": "x"})
    assert len(whole.distiller.present("ants", 1)) == 3


def test_an_aligner_rests_while_its_teacher_is_left_out() -> None:
    domain = worlds("ants")[0]
    made = learner(
        [domain],
        teachers={"ants": guests(domain)},
        distill={"teachers": "x", "teacher_dropout": 0.5},
    )
    moved: list[set[int]] = []
    for step, passes in zip(range(6), made.passes(), strict=False):
        present = {i for i, lesson in enumerate(made.distiller.lessons["ants"])
                   if lesson in made.distiller.present("ants", step)}  # fmt: skip
        before = [weight(lesson) for lesson in made.distiller.lessons["ants"]]
        made.step(passes)
        made.clock.tick()
        after = [weight(lesson) for lesson in made.distiller.lessons["ants"]]
        pairs = enumerate(zip(before, after, strict=True))
        moved.append({i for i, (a, b) in pairs if not a.equal(b)})
        assert moved[-1] == present
    assert {0, 1} in moved and len({frozenset(m) for m in moved}) > 1


def weight(lesson: Any) -> Tensor:
    (parameter,) = lesson.aligners.parameters()
    return parameter.detach().clone()
