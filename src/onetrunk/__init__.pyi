"""The public names; `__init__.py` imports each when it is first used."""

from .config import Distill, Recipe, Train
from .data.augment import Augment
from .data.domain import Domain
from .data.inspect import inspect
from .data.loader import Batch, Loader
from .data.pixels import Pixels
from .data.split import Split
from .data.task import Task
from .errors import BadInput, Failed, Missing, OnetrunkError
from .eval.budget import Budget, budget
from .eval.evaluate import evaluate
from .eval.evaluation import Evaluation
from .eval.summary import decathlon_score, delta_mtl
from .eval.table import Table
from .nn.pack import Pack
from .nn.saving import load, save
from .nn.trunk import Trunk
from .nn.universal import Universal
from .report.report import report
from .report.unify import unify
from .runs.add import add, import_pack
from .runs.change_domain import DomainResult
from .runs.compare import Comparison, compare
from .runs.open import Run
from .runs.pack_store import remove
from .runs.train import train
from .runs.update import relabel, undo, update
from .serve.export import export
from .train.callbacks import Callback, Training
from .train.distill.foreign import Foreign
from .train.distill.precompute import precompute
from .train.suspicious_labels import SuspiciousLabel, suspicious_labels

__all__ = [
    "Augment",
    "BadInput",
    "Batch",
    "Budget",
    "Callback",
    "Comparison",
    "Distill",
    "Domain",
    "DomainResult",
    "Evaluation",
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
    "SuspiciousLabel",
    "Table",
    "Task",
    "Train",
    "Training",
    "Trunk",
    "Universal",
    "add",
    "budget",
    "compare",
    "decathlon_score",
    "delta_mtl",
    "evaluate",
    "export",
    "import_pack",
    "inspect",
    "load",
    "precompute",
    "relabel",
    "remove",
    "report",
    "save",
    "suspicious_labels",
    "train",
    "undo",
    "unify",
    "update",
]
