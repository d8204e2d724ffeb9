"""One step: the gradient of each parameter, by hand in float64, and a plain loop to the bit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.data.task import Task
from onetrunk.nn.universal import Universal
from onetrunk.train.learner import Learner, NotFinite
from onetrunk.train.optimizer import SHARED
from tests.helpers.fakes import Fake, labelled, picture
from tests.helpers.worlds import learner, network, same, steps, weights, worlds

Grads = dict[str, Tensor]


class Tolerance(TypedDict):
    """Arguments of `torch.allclose`."""

    rtol: float
    atol: float


TIGHT: Tolerance = {"rtol": 1e-10, "atol": 1e-14}


def exact(domains: Sequence[Domain], **given: Any) -> Learner:
    """A learner in float64, where the order of sums hardly matters."""
    trunk = given.pop("trunk", {})
    return learner(domains, network(domains, **trunk).double(), **given)


def gradients(made: Learner, passes: list[list[Batch]]) -> Grads:
    """Run a step without the update; return the gradients."""
    taken: Grads = {}

    def record(*_: Any) -> float:
        for name, parameter in made.model.named_parameters():
            if parameter.grad is not None:
                taken[name] = parameter.grad.clone()
                parameter.grad = None
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made.optimizers, "step", record)
        made.step(passes)
    return taken


def owners(model: Universal) -> dict[str, str]:
    """The owner of each parameter, by its name in the model."""
    owner = {id(p): SHARED for p in model.shared_parameters().values()}
    owner |= {id(p): n for n in model.domains for p in model.parameters_of(n).values()}
    return {name: owner[id(p)] for name, p in model.named_parameters() if id(p) in owner}


def by_hand(model: Universal, batches: list[Batch], weight: dict[str, float]) -> Grads:
    """Shared: the mean over batches of w·ℓ; own: the mean over the domain's batches."""
    owner, named = owners(model), dict(model.named_parameters())
    total: Grads = {}
    times = Counter(batch.domain for batch in batches)
    for batch in batches:
        out = model(batch.images.double(), batch.domain)["classify"]
        loss = F.cross_entropy(out, batch.targets["classify"]) * weight[batch.domain]
        mine = [n for n in owner if owner[n] in (SHARED, batch.domain)]
        found = torch.autograd.grad(loss, [named[n] for n in mine], allow_unused=True)
        for name, grad in zip(mine, found, strict=True):
            if grad is not None:
                count = len(batches) if owner[name] == SHARED else times[batch.domain]
                total[name] = total.get(name, torch.zeros_like(grad)) + grad / count
    return total


def assert_close(one: Grads, other: Grads) -> None:
    assert one.keys() == other.keys()
    assert len(one) > 50
    for name, grad in one.items():
        assert grad.abs().sum() > 0, name
        assert torch.allclose(grad, other[name], **TIGHT), name


def weighted() -> list[Domain]:
    domains = worlds("ants", "bees", "cats")
    for domain, weight, batch in zip(domains, (2.0, 0.5, 1.0), (4, 6, 3), strict=True):
        changes = {"weight": weight, "batch": batch}
        domain.settings = domain.settings.model_copy(update=changes)
    return domains


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"accumulate": 2},
        {"sampling": "temperature", "accumulate": 5},
        {"trunk": {"adapters": "parallel"}},
        {"trunk": {"sharing": "partial", "own_stages": ["stem", 3]}},
        {"trunk": {"norm": "domain-stats"}},
    ],
    ids=str,
)
def test_gradients_are_means_over_the_batches_of_their_domains(
    given: dict[str, Any],
) -> None:
    made = exact(weighted(), **given)
    passes = next(made.passes())
    batches = [batch for group in passes for batch in group]
    times = Counter(batch.domain for batch in batches)
    assert len(batches) == (3 if "sampling" not in given else 1) * given.get("accumulate", 1)
    if "sampling" in given:
        assert max(times.values()) > 1 and len(times) > 1  # else this test would show nothing
    twin = exact(weighted(), trunk=given.get("trunk", {})).model.train()
    found = gradients(made, passes)
    assert_close(found, by_hand(twin, batches, {"ants": 2.0, "bees": 0.5, "cats": 1.0}))


def test_a_shared_head_gets_the_gradient_of_shared_parameters() -> None:
    domains = worlds("ants", "cats", "bees")[::2]
    made = exact(domains, trunk={"sharing": "full"})
    passes = next(made.passes())
    twin = exact(domains, trunk={"sharing": "full"}).model.train()
    expected = by_hand(twin, [b for group in passes for b in group], {"ants": 1.0, "bees": 1.0})
    assert any(name.startswith("together.") for name in expected)
    assert_close(gradients(made, passes), expected)


def test_accumulation_is_one_step_over_several_lists() -> None:
    domains = worlds("ants", "bees")
    one, two = exact(domains), exact(domains, accumulate=2)
    first, second = steps(one, 2)
    both = next(two.passes())
    for a, b in zip([*first, *second], both, strict=True):
        assert (a[0].domain, a[0].places.tolist()) == (b[0].domain, b[0].places.tolist())
    assert same(gradients(one, [*first, *second]), gradients(two, both))
    joined = exact(domains, accumulate=2, sampling="joined")
    assert [[b.domain for b in group] for group in next(joined.passes())] == [["ants", "bees"]] * 2


@pytest.mark.parametrize("norm", ["domain", "domain-stats", "instance", "shared-batch"])
def test_joined_has_the_gradients_of_separate_passes(norm: str) -> None:
    domains = worlds("ants", "bees", "cats")
    one = exact(domains, trunk={"norm": norm})
    other = exact(domains, sampling="joined", trunk={"norm": norm})
    passes, together = next(one.passes()), next(other.passes())
    assert (len(passes), len(together)) == (3, 1)
    assert_close(gradients(one, passes), gradients(other, together))


def test_joined_with_a_shared_norm_uses_statistics_over_all_domains() -> None:
    domains = worlds("ants", "bees")
    one = exact(domains, trunk={"norm": "shared"})
    other = exact(domains, sampling="joined", trunk={"norm": "shared"})
    a = gradients(one, next(one.passes()))
    b = gradients(other, next(other.passes()))
    assert max(float((a[n] - b[n]).abs().max() / a[n].abs().max()) for n in a) > 0.01


@pytest.mark.parametrize("given", [{}, {"channels_last": False}], ids=str)
@pytest.mark.parametrize("norm", ["shared", "domain"])
def test_one_domain_equals_a_plain_loop_to_the_bit(norm: str, given: dict[str, Any]) -> None:
    domains = worlds("ants")
    made = learner(domains, network(domains, norm=norm), steps=6, weight_decay=1e-3, **given)
    drawn = [group[0] for passes in steps(made, 6) for group in passes]
    plain = network(domains, norm=norm).for_domain("ants", fold=False).train()
    if given.get("channels_last", True):
        plain.to(memory_format=torch.channels_last)

    decay = [p for p in plain.parameters() if p.ndim > 1 and p.requires_grad]
    rest = [p for p in plain.parameters() if p.ndim == 1 and p.requires_grad]
    groups = [{"params": decay, "weight_decay": 1e-3}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True, fused=True)
    losses = []
    for step, batch in enumerate(drawn):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * step / 6))
        images = batch.images
        if not given.get("channels_last", True):
            images = images.contiguous()
        loss = F.cross_entropy(plain(images)["classify"], batch.targets["classify"])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))

    going, found = learner(domains, made.model, steps=6, weight_decay=1e-3, **given), []
    passes = going.passes()
    for _ in range(6):
        found.append(going.step(next(passes))["ants/classify"])
        going.clock.tick()
    assert found == losses
    learned = made.model.for_domain("ants", fold=False).state_dict()
    assert same(dict(learned), dict(plain.state_dict()))


def test_own_gradients_do_not_shrink_as_domains_are_added() -> None:
    alone, beside = exact(worlds("ants")), exact(worlds("ants", "bees", "cats", "dogs"))
    one = gradients(alone, next(alone.passes()))
    other = gradients(beside, next(beside.passes()))
    own = [name for name, owner in owners(alone.model).items() if owner == "ants"]
    assert len(own) > 30
    for name in own:
        assert torch.allclose(one[name], other[name], **TIGHT), name


def test_a_batch_without_labels_has_no_gradient() -> None:
    domains = worlds("ants", "bees")
    made, alone = exact(domains), exact(domains[:1])
    passes = next(made.passes())
    passes[1][0].targets["classify"].fill_(-1)
    found, expected = gradients(made, passes), gradients(alone, passes[:1])
    for name, owner in owners(made.model).items():
        if owner == "bees":
            assert not found[name].any()
        else:  # one of two batches has a gradient
            half = 0.5 if owner == SHARED else 1.0
            assert torch.allclose(found[name], expected[name] * half, **TIGHT), name
    for group in passes:
        group[0].targets["classify"].fill_(-1)
    assert not any(grad.any() for grad in gradients(made, passes).values())
    assert set(made.step(passes).values()) == {0.0}


def test_a_domains_loss_is_the_mean_over_its_tasks() -> None:
    items = labelled(20, "ab", ("train",))
    for i, item in enumerate(items):
        label = float(i % 5) if i % 2 else None
        items[i] = replace(item, labels={**item.labels, "size": label})
    items += [
        type(i)(f"{s}{i.key}", i.where, "", s, labels=i.labels)
        for s in ("val", "test")
        for i in items[:4]
    ]
    source = Fake(
        (Task("classify", "classify"), Task("size", "regress")),
        items,
        {str(i): picture(i, 8, 8) for i in range(20)},
    )
    made = exact([Domain("both", source, size=8)])
    passes = next(made.passes())
    batch = passes[0][0]
    twin = exact([Domain("both", source, size=8)]).model.train()
    out = twin(batch.images.double(), "both")
    size = batch.targets["size"]
    known = ~size.isnan()
    assert known.any() and not known.all()
    train = made.domains[0].train.label("size").astype(float)
    spread = float(torch.from_numpy(train[train == train]).std(correction=0))
    one = F.cross_entropy(out["classify"], batch.targets["classify"])
    other = ((out["size"] - size)[known] / spread).square().mean()
    named = {n: p for n, p in twin.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad((one + other) / 2, list(named.values()))
    found = gradients(made, passes)
    assert found.keys() == named.keys()
    for (name, grad), expected in zip(sorted(found.items()), sorted(named), strict=True):
        assert name == expected
        assert torch.allclose(grad, dict(zip(named, grads, strict=True))[name], rtol=1e-6), name


def test_a_loss_that_is_not_finite_is_named_and_nothing_changes() -> None:
    domains = worlds("ants", "bees")
    made = learner(domains, ema=0.5)
    going = made.passes()
    made.step(next(going))
    made.clock.tick()
    passes = next(going)
    bad = passes[1][0]
    with torch.no_grad():
        made.model.heads_of("bees").head("classify").get_parameter("bias").fill_(math.inf)
    before = {n: p.detach().clone() for n, p in made.model.named_parameters()}
    state = {n: t.clone() for n, t in made.optimizers.state().items()}
    with pytest.raises(NotFinite) as caught:
        made.step(passes)
    files = [domains[1].train.key(int(place)) for place in bad.places]
    assert caught.value.record == {"step": 2, "domain": "bees", "task": "classify", "files": files}
    assert all(fact in str(caught.value) for fact in ("bees/classify", "nan", "step 2"))
    assert "train.lr" in (caught.value.try_ or "")
    assert all(name in str(caught.value) for name in files)
    assert all(p.equal(before[n]) for n, p in made.model.named_parameters())
    assert same(made.optimizers.state(), state)


def test_gradients_of_the_caller_are_cleared() -> None:
    domains = worlds("ants")
    model = network(domains)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    one, other = learner(domains, model), learner(domains)
    one.step(steps(one, 1)[0])
    other.step(steps(other, 1)[0])
    assert same(weights(one.model), weights(other.model))


def test_the_losses_of_a_step_are_means_over_its_batches() -> None:
    domains = worlds("ants", "bees")
    made = exact(domains, accumulate=2)
    passes = next(made.passes())
    twin = exact(domains).model.train()
    each: dict[str, list[float]] = {}
    for group in passes:
        out = twin(group[0].images.double(), group[0].domain)["classify"]
        loss = F.cross_entropy(out, group[0].targets["classify"])
        each.setdefault(f"{group[0].domain}/classify", []).append(float(loss.detach()))
    found = made.step(passes)
    assert found == pytest.approx({unit: sum(v) / 2 for unit, v in each.items()}, rel=1e-12)
    assert made.means.images == {"ants": 8, "bees": 8}


def test_only_the_forward_pass_is_in_half_precision() -> None:
    domains = worlds("ants", "bees")
    made = learner(domains, precision="bfloat16")
    plain = learner(domains)
    passes = next(made.passes())
    one, other = made.step(passes), plain.step(passes)
    assert one != other
    assert one == pytest.approx(other, rel=0.05)
    assert all(
        not t.is_floating_point() or t.dtype == torch.float32 for t in weights(made.model).values()
    )
