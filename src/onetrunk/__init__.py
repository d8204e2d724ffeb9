"""onetrunk: one vision network for all of your image domains and tasks."""

from onetrunk.config import Recipe
from onetrunk.data.augment import Augment
from onetrunk.data.domain import Domain
from onetrunk.data.inspect import inspect
from onetrunk.data.loader import Batch, Loader
from onetrunk.data.pixels import Pixels
from onetrunk.data.split import Split
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed, Missing, OnetrunkError
from onetrunk.eval.budget import Budget, budget
from onetrunk.eval.evaluate import evaluate
from onetrunk.eval.summary import decathlon_score, delta_mtl
from onetrunk.eval.table import Table
from onetrunk.nn.pack import Pack
from onetrunk.nn.saving import load, save
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.report.report import report
from onetrunk.runs.add import add
from onetrunk.runs.train import Run, train
from onetrunk.serve.export import export
from onetrunk.train.distill.foreign import Foreign
from onetrunk.train.distill.precompute import precompute

__all__ = [
    "Augment",
    "BadInput",
    "Batch",
    "Budget",
    "Domain",
    "Failed",
    "Foreign",
    "Loader",
    "Missing",
    "OnetrunkError",
    "Pack",
    "Pixels",
    "Recipe",
    "Run",
    "Split",
    "Table",
    "Task",
    "Trunk",
    "Universal",
    "add",
    "budget",
    "decathlon_score",
    "delta_mtl",
    "evaluate",
    "export",
    "inspect",
    "load",
    "precompute",
    "report",
    "save",
    "train",
]
