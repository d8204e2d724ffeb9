"""Optimizers: which one updates which parameters, at which learning rate.

The shared parameters have one optimizer, and the own parameters of each domain another. So domains
that are not in a step add nothing to its cost, and do not change, neither by momentum nor by weight
decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from onetrunk.config import Train
from onetrunk.config.optimizers import OptimizerName
from onetrunk.nn.universal import Universal

SHARED = ""  # the owner of parameters that no domain owns
Named = Mapping[str, Mapping[str, nn.Parameter]]  # parameters by owner and name


class Optimizers:
    """All optimizers of one model."""

    def __init__(self, model: Universal, train: Train) -> None:
        self.train = train
        named: dict[str, Mapping[str, nn.Parameter]] = {SHARED: model.shared_parameters()}
        named |= {name: model.parameters_of(name) for name in model.domains}
        self.parameters: dict[str, dict[str, nn.Parameter]] = {}
        taken: set[int] = set()
        for owner, parameters in named.items():
            # with full sharing a head is listed by several domains; the first listing counts
            own = {k: p for k, p in parameters.items() if p.requires_grad and id(p) not in taken}
            taken.update(map(id, own.values()))
            if own:
                self.parameters[owner] = own
        self.optimizers = {owner: self._make(own) for owner, own in self.parameters.items()}

    def _make(self, named: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        train = self.train
        decay = train.weight_decay
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in named.items():
            rate = train.lr * (train.head_lr_factor if name.startswith("heads/") else 1.0)
            # norm scales and biases are vectors; decaying them to zero does not regularize
            groups.setdefault((rate, decay if parameter.ndim > 1 else 0.0), []).append(parameter)
        param_groups = [
            {"params": parameters, "lr": rate, "weight_decay": decay, "peak": rate}
            for (rate, decay), parameters in groups.items()
        ]
        return MAKERS[train.optimizer](param_groups, train)

    def for_domains(self, domains: Iterable[str]) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        """Yield the optimizers that a step with these domains uses, with their owners."""
        for owner in (SHARED, *domains):
            if owner in self.optimizers:
                yield owner, self.optimizers[owner]

    def gradients(self, domains: Iterable[str]) -> list[Tensor]:
        """Return the gradients of these domains' own parameters."""
        every = (p.grad for name in domains for p in self.parameters.get(name, {}).values())
        return [grad for grad in every if grad is not None]

    def clip(self, domains: Iterable[str]) -> None:
        """Scale the step's gradients down to the norm `train.clip`."""
        used = [
            p for owner, _ in self.for_domains(domains) for p in self.parameters[owner].values()
        ]
        total = nn.utils.get_total_norm([p.grad for p in used if p.grad is not None])
        # float16 may overflow for one owner, whose step is then skipped; NaN would spread to all
        total = total.nan_to_num(nan=math.inf, posinf=math.inf)
        nn.utils.clip_grads_with_norm_(used, self.train.clip, total)

    def step(
        self, domains: Iterable[str], progress: float, scaler: torch.amp.GradScaler | None = None
    ) -> float:
        """Update the parameters, clear their gradients, and return the trunk's learning rate."""
        factor = rate_at(progress, self.train)
        for _, optimizer in self.for_domains(domains):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
            optimizer.zero_grad()
        return self.train.lr * factor

    def state(self) -> dict[str, Tensor]:
        """Return the state of all optimizers, for a checkpoint."""
        return optimizer_state(self.optimizers, self.parameters)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the state from a checkpoint."""
        load_optimizer_state(self.optimizers, self.parameters, tensors)


ParamGroups = list[dict[str, Any]]


def make_adamw(groups: ParamGroups, train: Train) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=train.lr, fused=True)


def make_sgd(groups: ParamGroups, train: Train) -> torch.optim.Optimizer:
    """Return SGD with Nesterov momentum."""
    momentum = train.momentum or 0.0
    sgd = torch.optim.SGD(groups, lr=train.lr, momentum=momentum, nesterov=momentum > 0, fused=True)
    for parameter in (p for group in groups for p in group["params"] if momentum):
        # torch creates the buffer at a parameter's first gradient: its fused kernel fails where
        # only some of a group have one, and leaves invalid values where float16 overflowed
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


MAKERS: Mapping[OptimizerName, Callable[[ParamGroups, Train], torch.optim.Optimizer]] = (
    MappingProxyType({"adamw": make_adamw, "sgd": make_sgd})
)


def optimizer_state(
    optimizers: Mapping[str, torch.optim.Optimizer], parameters: Named
) -> dict[str, Tensor]:
    """Return the tensors in the state of optimizers, by `owner:parameter:key`."""
    return {
        f"{owner}:{name}:{key}": value
        for owner, optimizer in optimizers.items()
        for name, parameter in parameters[owner].items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(
    optimizers: Mapping[str, torch.optim.Optimizer],
    parameters: Named,
    tensors: Mapping[str, Tensor],
) -> None:
    """Load what `optimizer_state` returned; each tensor takes its parameter's memory layout."""
    for optimizer in optimizers.values():
        optimizer.state.clear()
    for path, value in tensors.items():
        owner, name, key = path.split(":", 2)
        parameter = parameters[owner][name]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        else:
            value = value.to(parameter.device)  # fused kernels keep step counts on the device
        optimizers[owner].state[parameter][key] = value


def tensors_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix/`, without it."""
    start = f"{prefix}/"
    return {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}


def rate_at(progress: float, train: Train) -> float:
    """Return the learning rate at this share of the training (0 to 1), relative to its peak.

    Linear warmup, then one of: cosine ½(1 + cos πt), t from 0 to 1 over what is left; step: γ for
    every milestone passed; or constant.
    """
    if progress < train.warmup:
        return min(1.0, max(progress, 1e-3) / train.warmup)
    if train.schedule == "cosine":
        t = (progress - train.warmup) / max(1 - train.warmup, 1e-9)
        return 0.5 * (1 + math.cos(math.pi * min(t, 1.0)))
    if train.schedule == "step":
        return float(train.gamma ** sum(progress >= at for at in train.milestones))
    return 1.0
