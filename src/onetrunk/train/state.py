"""Everything that the next step depends on, as tensors and plain numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from onetrunk.errors import Diverged
from onetrunk.store.run_folder import Saved

if TYPE_CHECKING:
    from onetrunk.train.loop import Learner


def snapshot(learner: Learner) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The learner as it is between two steps."""
    weights = learner.model.state_dict()
    floats = [name for name, tensor in weights.items() if tensor.is_floating_point()]
    finite = torch.stack([torch.isfinite(weights[name]).all() for name in floats])
    if not bool(finite.all()):  # looked at together: a look at each would wait for the device
        name = next(name for name, fine in zip(floats, finite.tolist(), strict=True) if not fine)
        raise Diverged(
            f"{name} is not finite after step {learner.clock.step}, though every loss was; "
            "the last checkpoint is whole; try: a new run with a lower train.lr or with "
            "train.clip = 1"
        )
    tensors = {f"model/{name}": tensor for name, tensor in weights.items()}
    tensors |= {f"optim/{name}": tensor for name, tensor in learner.descent.state().items()}
    tensors |= {f"distill/{name}": tensor for name, tensor in learner.distiller.state().items()}
    tensors |= {f"weighting/{name}": t for name, t in learner.objective.weighting.state().items()}
    if learner.average is not None:
        tensors |= {f"average/{name}": t for name, t in learner.average.state().items()}
    tensors["chance/cpu"] = torch.get_rng_state()
    if learner.device.type == "cuda":
        tensors["chance/cuda"] = torch.cuda.get_rng_state(learner.device)
    scaler = learner.precision.scaler
    state = {
        "clock": learner.clock.state(),
        "tally": learner.tally.state(),
        "selection": learner.selection.state(),
        "loader": learner.loader.state(),
        "scaler": None if scaler is None else scaler.state_dict(),
    }
    return tensors, state


def restore(learner: Learner, saved: Saved) -> None:
    """The learner as it was when this checkpoint was written."""
    tensors = saved.tensors()
    learner.model.load_state_dict(_under("model/", tensors))
    learner.descent.restore(_under("optim/", tensors))
    learner.distiller.restore(_under("distill/", tensors))
    learner.objective.weighting.restore(_under("weighting/", tensors))
    if learner.average is not None:
        learner.average.restore(_under("average/", tensors))
    torch.set_rng_state(tensors["chance/cpu"])
    if "chance/cuda" in tensors and learner.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["chance/cuda"], learner.device)
    learner.clock.restore(saved.state["clock"])
    learner.tally.restore(saved.state["tally"])
    learner.selection.restore(saved.state["selection"])
    learner.loader.restore(saved.state["loader"])
    if learner.precision.scaler is not None:
        learner.precision.scaler.load_state_dict(saved.state["scaler"])


def take_weights(learner: Learner, saved: Saved) -> None:
    """The model as it was evaluated at this checkpoint: by its averaged weights, if it has them."""
    tensors = saved.tensors()
    weights = _under("model/", tensors) | _under("average/", tensors)
    learner.model.load_state_dict(weights)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
