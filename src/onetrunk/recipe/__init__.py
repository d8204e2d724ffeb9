"""What to do, from TOML: recipes, validated before anything starts."""

from onetrunk.recipe.check import Checked
from onetrunk.recipe.distill import Distill
from onetrunk.recipe.domains import DomainPart
from onetrunk.recipe.recipe import Recipe, named_recipes
from onetrunk.recipe.train import Train
from onetrunk.recipe.trunk import TrunkPart

__all__ = ["Checked", "Distill", "DomainPart", "Recipe", "Train", "TrunkPart", "named_recipes"]
