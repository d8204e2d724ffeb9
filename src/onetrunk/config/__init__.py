"""Recipes: what a training does, read from TOML and validated before anything starts."""

from onetrunk.config.distill import Distill
from onetrunk.config.recipe import Recipe, named_recipes
from onetrunk.config.train import Train

__all__ = ["Distill", "Recipe", "Train", "named_recipes"]
