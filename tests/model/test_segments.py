"""Batch norms of many domains at once are each domain's own batch norm, values and gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from onetrunk.model import segments


def norms(count: int, channels: int, kind: type = nn.BatchNorm2d) -> list[nn.Module]:
    torch.manual_seed(5)
    made = [kind(channels).double() for _ in range(count)]
    with torch.no_grad():
        for norm in made:
            for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
                tensor.add_(torch.rand_like(tensor))
    return made


def one_after_another(x: Tensor, slots: list[nn.Module], sizes: list[int]) -> Tensor:
    return torch.cat([s(p) for s, p in zip(slots, torch.split(x, sizes), strict=True)])


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [3, 1, 2, 5, 1], [4] * 7])
@pytest.mark.parametrize("last", [False, True])
def test_it_is_each_domains_own_batch_norm(sizes: list[int], last: bool) -> None:
    slots = norms(len(sizes), 6)
    others = copy.deepcopy(slots)
    x = (torch.randn(sum(sizes), 6, 5, 4).double() * 3 + 7).requires_grad_()
    if last:
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    z = x.detach().clone().requires_grad_()
    assert segments.fits(x, slots, sizes)
    ours, theirs = segments.batch_norm(x, slots, sizes), one_after_another(z, others, sizes)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(theirs)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(x.grad, z.grad, rtol=1e-9, atol=1e-9)
    for mine, other in zip(slots, others, strict=True):
        for a, b in zip(mine.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9)
        for key, value in other.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[key], value, rtol=1e-10, atol=1e-10)


def test_the_order_of_domains_does_not_matter() -> None:
    slots, sizes = norms(4, 3), [2, 3, 1, 2]
    x = torch.randn(8, 3, 4, 4).double()
    pieces = torch.split(x, sizes)
    ours = torch.split(segments.batch_norm(x, copy.deepcopy(slots), sizes), sizes)
    turned = segments.batch_norm(torch.cat(pieces[::-1]), copy.deepcopy(slots)[::-1], sizes[::-1])
    for a, b in zip(ours, torch.split(turned, sizes[::-1])[::-1], strict=True):
        torch.testing.assert_close(a, b)


def test_pinned_values() -> None:
    slots = [nn.BatchNorm1d(1, eps=0.0, momentum=0.5) for _ in range(4)]
    x = torch.tensor([[[0.0, 2.0]], [[1.0, 5.0]], [[2.0, 2.5]], [[4.0, 0.0]]])
    y = segments.batch_norm(x, slots, [1, 1, 1, 1])
    torch.testing.assert_close(y[:, 0], torch.tensor([[-1.0, 1], [-1, 1], [-1, 1], [1, -1]]))
    assert slots[1].running_mean is not None
    assert slots[1].running_mean.item() == 1.5  # half of the way from 0 to 3
    assert slots[1].running_var is not None
    assert slots[1].running_var.item() == 4.5  # half of the way from 1 to 8, unbiased


def test_what_it_is_not_right_for_goes_one_after_another() -> None:
    slots, sizes = norms(4, 3), [1, 1, 1, 1]
    x = torch.randn(4, 3, 2, 2).double()
    assert segments.fits(x, slots, sizes)
    assert not segments.fits(x[:3], slots[:3], sizes[:3])  # few are as fast
    assert not segments.fits(x[:, :, :1, :1], slots, sizes)  # no moments of one number
    assert not segments.fits(x.float(), slots, sizes)
    slots[2].eval()
    assert not segments.fits(x, slots, sizes)
