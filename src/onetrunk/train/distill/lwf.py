"""Learning without forgetting: predictions of old domains on new images (Li & Hoiem 2016).

A run that starts from another one (`init = RUN`) trains its trunk from θ₀ to θ. The domains of RUN
that are not trained here are old. Each step takes one of them, o, in turn, and adds to the loss of
a batch x

    lwf · mean over o's tasks t of ℓ_t( f_t(x; θ, φ_o), f_t(x; θ₀, φ_o) )

where φ_o are o's slots and heads as RUN left them, and ℓ_t is the loss of prediction_losses.py.
Over steps this is the mean over old domains. Only the trunk receives gradients: RUN's network is
frozen and in evaluation mode, and is run a second time with the trained model's shared tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from onetrunk.config import Distill, Recipe
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.nn.heads import Numbers
from onetrunk.nn.shared_heads import SharedHead
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.train.device import Precision
from onetrunk.train.distill.prediction_losses import PredictionLoss, make_prediction_loss
from onetrunk.train.distill.teachers import ImageConverter
from onetrunk.train.initialize import load_shared
from onetrunk.train.losses import full_precision


class OldPredictions:
    """The loss between the old domains' predictions before and during training.

    Args:
        before: The network that the run starts from.
        domains: All domains that are trained.
    """

    def __init__(self, before: Universal, domains: Sequence[Domain], distill: Distill) -> None:
        trained = [domain.name for domain in domains]
        self.old = tuple(name for name in before.domains if name not in trained)
        if not self.old:
            raise BadInput(
                "distill.lwf: expected a domain of init that is not trained here",
                got=", ".join(trained),
                available=before.domains,
                try_="lwf = 0",
            )
        self.before = before.eval().requires_grad_(False)
        self.weight = distill.lwf
        self.losses = {name: _task_losses(before, name, distill.temperature) for name in self.old}
        if without := [name for name, losses in self.losses.items() if not losses]:
            raise BadInput(
                "distill.lwf: expected old domains with another task than an embedding",
                got=", ".join(without),
                try_="train this domain here as well, or lwf = 0",
            )
        self.converters = {
            (domain.name, name): ImageConverter(domain.pixels, before.domains[name].pixels)
            for domain in domains
            for name in self.old
        }
        self.trunk: dict[str, Tensor] = {}  # of the trained model, by the old network's names

    def follow(self, model: Universal, precision: Precision, channels_last: bool) -> None:
        """Use the trunk of the model in training, and move to its device."""
        like = next(model.parameters())
        self.before.to(like.device, like.dtype)
        if channels_last:
            self.before.to(memory_format=torch.channels_last)
        for converter in self.converters.values():
            converter.to(like.device)
        self.precision = precision
        names = {id(t): key for key, t in self.before.state_dict(keep_vars=True).items()}
        old_trunk = self.before.trunk.shared()
        self.trunk = {names[id(old_trunk[key])]: t for key, t in model.trunk.shared().items()}

    def loss(self, domain: str, images: Tensor, step: int) -> Tensor:
        """Return the weighted loss of a batch, on the images that the model received."""
        old = self.old[step % len(self.old)]
        # shared statistics are updated by the next forward pass, before this one's backward pass
        trunk = {k: t if isinstance(t, nn.Parameter) else t.clone() for k, t in self.trunk.items()}
        with self.precision.autocast():
            x = self.converters[domain, old](images)
            with torch.no_grad():
                targets = self.before(x, domain=old)
            predictions = functional_call(self.before, trunk, (x,), {"domain": old})
        losses = [
            loss(full_precision(predictions[task]), full_precision(targets[task]))
            for task, loss in self.losses[old].items()
        ]
        return self.weight * torch.stack(losses).mean()


def _task_losses(model: Universal, name: str, temperature: float) -> Mapping[str, PredictionLoss]:
    """Return the losses of a domain's tasks; predicted numbers are divided by their head's std."""
    losses: dict[str, PredictionLoss] = {}
    for task in model.domains[name].tasks:
        loss = make_prediction_loss(task, None, temperature)
        if loss is None:
            continue
        head = model.heads_of(name).head(task.name)
        head = head.held[0] if isinstance(head, SharedHead) else head
        losses[task.name] = _in_stds(loss, head) if isinstance(head, Numbers) else loss
    return losses


def _in_stds(loss: PredictionLoss, head: Numbers) -> PredictionLoss:
    return lambda s, t: loss(s / head.std, t / head.std)


def find_old_predictions(recipe: Recipe, domains: Sequence[Domain]) -> OldPredictions | None:
    """Return the loss on the old domains of the run that a recipe starts from, if it has one."""
    folder = recipe.init_folder
    if folder is None or not recipe.distill.uses_lwf:
        return None
    old = OldPredictions(load_shared(folder, "distill.lwf: "), domains, recipe.distill)
    say(f"learning without forgetting: predictions of {', '.join(old.old)} are kept")
    return old
