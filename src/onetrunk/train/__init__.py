"""Training: the loop, losses, optimizers, distillation, loss weighting and few images."""
