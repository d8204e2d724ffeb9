"""Descent: which optimizer moves what, at which rate.

What is shared has one optimizer and every domain's own parameters one of their own, so that a step
costs what the domains in it cost, however many others there are, and a domain that is not in a step
is not moved by it: not by momentum, not by decay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from onetrunk.config import Train
from onetrunk.nn.universal import Universal

SHARED = ""  # the name of what is no domain's own


class Descent:
    """All optimizers of one model, as the settings say."""

    def __init__(self, model: Universal, train: Train) -> None:
        self.train = train
        named: dict[str, Mapping[str, nn.Parameter]] = {SHARED: model.shared_parameters()}
        named |= {name: model.parameters_of(name) for name in model.domains}
        self.parameters: dict[str, dict[str, nn.Parameter]] = {}
        taken: set[int] = set()
        for unit, parameters in named.items():
            # a head that full sharing shares is in no domain's own
            mine = {k: p for k, p in parameters.items() if p.requires_grad and id(p) not in taken}
            taken.update(map(id, mine.values()))
            if mine:
                self.parameters[unit] = mine
        self.optimizers = {unit: self._make(mine) for unit, mine in self.parameters.items()}

    def _make(self, named: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        train = self.train
        decay = train.weight_decay or 0.0
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in named.items():
            rate = train.lr * (train.head_lr_factor if name.startswith("heads/") else 1.0)
            # norms' scales and every bias are vectors: to pull them to zero regularises nothing
            groups.setdefault((rate, decay if parameter.ndim > 1 else 0.0), []).append(parameter)
        given = [
            {"params": parameters, "lr": rate, "weight_decay": decay, "peak": rate}
            for (rate, decay), parameters in groups.items()
        ]
        if train.optimizer == "adamw":
            return torch.optim.AdamW(given, lr=train.lr, fused=True)
        sgd = torch.optim.SGD(
            given, lr=train.lr, momentum=train.momentum, nesterov=train.momentum > 0, fused=True
        )
        for parameter in named.values() if train.momentum else ():
            # torch starts it at a parameter's first gradient: its fused kernel fails where some of
            # a group have had one and some not, and keeps garbage where float16 overflowed
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd

    def of(self, domains: Iterable[str]) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        """The optimizers that a step with these domains moves."""
        for unit in (SHARED, *domains):
            if unit in self.optimizers:
                yield unit, self.optimizers[unit]

    def gradients(self, domains: Iterable[str]) -> list[Tensor]:
        """The gradients that these domains' own parameters have."""
        every = (p.grad for name in domains for p in self.parameters.get(name, {}).values())
        return [grad for grad in every if grad is not None]

    def clip(self, domains: Iterable[str]) -> None:
        """Scale the step's gradients to the norm that the settings allow."""
        moved = [p for unit, _ in self.of(domains) for p in self.parameters[unit].values()]
        total = nn.utils.get_total_norm([p.grad for p in moved if p.grad is not None])
        # float16 may overflow in one unit, whose step is then skipped; NaN would reach the others
        total = total.nan_to_num(nan=math.inf, posinf=math.inf)
        nn.utils.clip_grads_with_norm_(moved, self.train.clip, total)

    def step(
        self, domains: Iterable[str], progress: float, scaler: torch.amp.GradScaler | None = None
    ) -> float:
        """Move what this step learned about, forget the gradients; the rate of the trunk."""
        factor = rate_at(progress, self.train)
        for _, optimizer in self.of(domains):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
            optimizer.zero_grad()
        return self.train.lr * factor

    def state(self) -> dict[str, Tensor]:
        """What the optimizers remember, by unit, parameter and name."""
        return kept(self.optimizers, self.parameters)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Remember again."""
        lwf(self.optimizers, self.parameters, tensors)


Named = Mapping[str, Mapping[str, nn.Parameter]]  # parameters by unit and name


def kept(optimizers: Mapping[str, torch.optim.Optimizer], parameters: Named) -> dict[str, Tensor]:
    """What optimizers remember, by unit, parameter and name."""
    return {
        f"{unit}:{name}:{key}": value
        for unit, optimizer in optimizers.items()
        for name, parameter in parameters[unit].items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def lwf(
    optimizers: Mapping[str, torch.optim.Optimizer],
    parameters: Named,
    tensors: Mapping[str, Tensor],
) -> None:
    """Give optimizers what `kept` held; each tensor takes the memory layout of its parameter."""
    for optimizer in optimizers.values():
        optimizer.state.clear()
    for place, value in tensors.items():
        unit, name, key = place.split(":", 2)
        parameter = parameters[unit][name]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        else:
            value = value.to(parameter.device)  # the fused kernels count steps on the device
        optimizers[unit].state[parameter][key] = value


def rate_at(progress: float, train: Train) -> float:
    """The share of the peak rate at this part of the training, 0 to 1.

    Warmup rises in a line; then cosine ½(1 + cos πt), t from 0 to 1 over what is left; step: γ for
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
