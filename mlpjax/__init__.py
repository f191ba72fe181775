"""mlpjax: the multi-layer perceptron in JAX, its gradients derived by hand and proved.

Names load on first use: ``import mlpjax`` alone imports no jax. Where a docstring says *Source*, an id such as
``deep-back-dW`` stands for one row of the lecture: its section (``deep``), then the formula or property.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlpjax.activations import ACTIVATIONS, Activation
    from mlpjax.audit import check_gradients
    from mlpjax.augment import ImageAugment
    from mlpjax.augment_vectors import VectorAugment
    from mlpjax.certificate import RunCertificate, first_differing_epoch
    from mlpjax.checkpoint import Checkpoints
    from mlpjax.config import Config
    from mlpjax.data import load_dataset
    from mlpjax.disk import DiskData
    from mlpjax.doctor import Examination, Verdict, examine
    from mlpjax.errors import CheckpointError, CheckpointWarning, ConfigError, DataError, InputError, ModelFileError
    from mlpjax.folding import fold
    from mlpjax.glassbox import trace
    from mlpjax.heads import HEADS, Head
    from mlpjax.initializers import INITIALIZERS
    from mlpjax.loop import Progress, evaluate
    from mlpjax.mlp import (
        apply_update,
        autodiff,
        backward,
        decide,
        forward,
        input_gradient,
        loss,
        predict,
    )
    from mlpjax.model_files import Model, load, save
    from mlpjax.parameters import Aux, Batch, Layer, init
    from mlpjax.penalties import PENALTIES, Penalty
    from mlpjax.population import PopulationProgress, fit_many
    from mlpjax.problems import Dataset
    from mlpjax.provenance import FaultyStep, find_fault
    from mlpjax.provenance_naming import Fault
    from mlpjax.provenance_replay import replay, write_replay
    from mlpjax.reports import GradientReport
    from mlpjax.step import TrainState, accumulate
    from mlpjax.sweep import Search, search
    from mlpjax.traces import Quantity, Trace
    from mlpjax.train import FitResult, fit

__version__ = "0.1.0"

_HOME = {
    "activations": ("ACTIVATIONS", "Activation"),
    "audit": ("check_gradients",),
    "augment": ("ImageAugment",),
    "augment_vectors": ("VectorAugment",),
    "certificate": ("RunCertificate", "first_differing_epoch"),
    "checkpoint": ("Checkpoints",),
    "data": ("load_dataset",),
    "disk": ("DiskData",),
    "doctor": ("Examination", "Verdict", "examine"),
    "errors": ("CheckpointError", "CheckpointWarning", "ConfigError", "DataError", "InputError", "ModelFileError"),
    "folding": ("fold",),
    "glassbox": ("trace",),
    "heads": ("HEADS", "Head"),
    "initializers": ("INITIALIZERS",),
    "loop": ("Progress", "evaluate"),
    "model_files": ("Model", "load", "save"),
    "mlp": ("apply_update", "autodiff", "backward", "decide", "forward", "input_gradient", "loss", "predict"),
    "parameters": ("Aux", "Batch", "Config", "Layer", "init"),  # which makes Config a pytree
    "penalties": ("PENALTIES", "Penalty"),
    "population": ("PopulationProgress", "fit_many"),
    "problems": ("Dataset",),
    "provenance": ("FaultyStep", "find_fault"),
    "provenance_naming": ("Fault",),
    "provenance_replay": ("replay", "write_replay"),
    "reports": ("GradientReport",),
    "step": ("TrainState", "accumulate"),
    "sweep": ("Search", "search"),
    "traces": ("Quantity", "Trace"),
    "train": ("FitResult", "fit"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted([*_MODULE_OF, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mlpjax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mlpjax.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
