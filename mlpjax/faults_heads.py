"""Faults of the heads: the start of the backward pass, dZ[L] = (∂L/∂Z[L]) w/Σw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mlpjax.activations import relu, sigmoid
from mlpjax.config import Config
from mlpjax.faults_record import REGRESSION, TANH, Exercise, Fault, anywhere, both, has_head, network, several_outputs
from mlpjax.heads import HEADS, softmax
from mlpjax.passes import RULES, Pass

SIGMOIDS = ("binary", "multilabel")
CLASSIFIERS = (*SIGMOIDS, "multiclass")
SMOOTHING = 0.1


def _output(dz: Callable[[Config, jax.Array, jax.Array], jax.Array]) -> dict[str, Any]:
    """Another ∂L/∂Z[L], ``dz(config, z, y)``."""
    return {"rules": RULES._replace(output=lambda config, this: dz(config, this.z, this.y) * this.p[:, None])}


def _dz(config: Config, z: jax.Array, y: jax.Array) -> jax.Array:
    return HEADS[config.head].dz(z, y)


def _yhat(config: Config, z: jax.Array) -> jax.Array:
    return HEADS[config.head].link(z)


def _smoothed(config: Config, z: jax.Array, y: jax.Array) -> jax.Array:
    classes = config.sizes[-1] if config.head == "multiclass" else 2
    return _dz(config, z, (1 - SMOOTHING) * y + SMOOTHING / classes)


def _loss_derivative(config: Config, z: jax.Array, y: jax.Array) -> jax.Array:
    """∂L/∂ŷ."""
    yhat = _yhat(config, z)
    return -y / yhat if config.head == "multiclass" else (yhat - y) / (yhat * (1 - yhat))


def _with_yhat_derivative(config: Config, z: jax.Array, y: jax.Array) -> jax.Array:
    yhat = _yhat(config, z)
    return (yhat - y) * yhat * (1 - yhat)


def _relu_at_0(config: Config, this: Pass) -> jax.Array:
    return RULES.output(config, this) - jnp.where(this.z == 0, this.y * this.p[:, None], 0)


MULTILABEL = Exercise(network(head="multilabel"))
RELU_HEAD = Exercise(network(head="regression_relu"))

HEAD_FAULTS = (
    Fault(
        "residual-sign", "the backward pass starts with y − ŷ",
        "dZ[L] = ŷ − y", "prob-canonical", TANH, anywhere, **_output(lambda config, z, y: -_dz(config, z, y)),
    ),
    Fault(
        "mean-over-outputs", "the loss's derivative is averaged over the outputs as well",
        "Lᵢ is the sum over the outputs", "err-multi-output-sum",
        TANH, several_outputs, **_output(lambda config, z, y: _dz(config, z, y) / config.sizes[-1]),
    ),
    Fault(
        "link-forgotten", "dZ[L] = z − y: scores are taken for probabilities",
        "dZ[L] = ŷ − y", "prob-ml-back-dz", TANH, has_head(*CLASSIFIERS), **_output(lambda config, z, y: z - y),
    ),
    Fault(
        "link-derivative-twice", "ŷ(1 − ŷ) is multiplied in again, as for a squared error",
        "dZ[L] = ŷ − y", "logreg-back-dz", TANH, has_head(*CLASSIFIERS), **_output(_with_yhat_derivative),
    ),
    Fault(
        "link-derivative-forgotten", "dZ[L] = ∂L/∂ŷ: the derivative of sigmoid or softmax is left out",
        "dZ[L] = ∂L/∂ŷ ∂ŷ/∂z = ŷ − y", "prob-ml-back-chain",
        TANH, has_head(*CLASSIFIERS), **_output(_loss_derivative),
    ),
    Fault(
        "label-smoothing-left-on", f"the gradient is that of labels smoothed by {SMOOTHING}",
        "dZ[L] = ŷ − y with the labels as they are", "prob-mc-loss",
        TANH, has_head(*CLASSIFIERS), **_output(_smoothed),
    ),
    Fault(
        "labels-plus-minus-1", "labels −1 and 1 in a formula for 0 and 1",
        "dZ[L] = ŷ − y with y ∈ {0, 1}", "logreg-bce",
        Exercise(network(head="binary")), has_head(*SIGMOIDS), **_output(lambda config, z, y: sigmoid(z) - (2 * y - 1)),
    ),
    Fault(
        "cross-entropy-misprint", "∂L/∂ŷ as −(y/ŷ + (1 − y)/(1 − ŷ))",
        "∂L/∂ŷ = −(y/ŷ − (1 − y)/(1 − ŷ))", "err-v2-da-sign",
        Exercise(network(head="binary")), has_head(*SIGMOIDS),
        **_output(lambda config, z, y: -(y * (1 - sigmoid(z)) + (1 - y) * sigmoid(z))),
    ),
    Fault(
        "softmax-for-sigmoid", "labels that may all be true are given a softmax",
        "dZ[L] = σ(z) − y", "prob-ml-back-sigmoid",
        MULTILABEL, both(has_head("multilabel"), several_outputs), **_output(lambda config, z, y: softmax(z) - y),
    ),
    Fault(
        "sigmoid-for-softmax", "classes that exclude each other are each given a sigmoid",
        "dZ[L] = softmax(z) − y", "err-mc-exclusive",
        TANH, has_head("multiclass"), **_output(lambda config, z, y: sigmoid(z) - y),
    ),
    Fault(
        "softmax-element-wise", "softmax is treated as element-wise: only the diagonal of its Jacobian is used",
        "dZ_o = Σ_c dA_c ŷ_c(δ_co − ŷ_o) = ŷ_o − y_o", "err-hadamard-softmax",
        TANH, has_head("multiclass"), **_output(lambda config, z, y: -y * (1 - softmax(z))),
    ),
    Fault(
        "softmax-over-examples", "softmax is normalised over the rows of the batch",
        "ŷ_c = e^{z_c} / Σ_o e^{z_o}, over the classes", "prob-mc-softmax",
        TANH, has_head("multiclass"), **_output(lambda config, z, y: softmax(z.T).T - y),
    ),
    Fault(
        "softmax-twice", "probabilities go through softmax again, in a loss that expects scores",
        "dZ[L] = softmax(z) − y", "prob-mc-back-dz",
        TANH, has_head("multiclass"), **_output(lambda config, z, y: softmax(softmax(z)) - y),
    ),
    Fault(
        "squared-error-factor-2", "2(ŷ − y): the ½ of the loss is forgotten",
        "dZ[L] = ŷ − y for ½(ŷ − y)²", "err-mse-conventions",
        REGRESSION, has_head("regression", "regression_relu"), **_output(lambda config, z, y: 2 * _dz(config, z, y)),
    ),
    Fault(
        "absolute-error", "sign(ŷ − y): the derivative of |ŷ − y|",
        "dZ[L] = ŷ − y for ½(ŷ − y)²", "prob-reg-loss",
        REGRESSION, has_head("regression", "regression_relu"),
        **_output(lambda config, z, y: jnp.sign(_dz(config, z, y))),
    ),
    Fault(
        "relu-head-unmasked", "the ReLU of the output has no derivative",
        "dZ[L] = (relu(z) − y) ⊙ relu′(z)", "prob-reg-relu-out",
        RELU_HEAD, has_head("regression_relu"), **_output(lambda config, z, y: relu(z) - y),
    ),
    Fault(
        "relu-head-as-linear", "z − y: the output's ReLU is missing in the backward pass",
        "dZ[L] = (relu(z) − y) ⊙ relu′(z)", "err-reg-linear-relu",
        RELU_HEAD, has_head("regression_relu"), **_output(lambda config, z, y: z - y),
    ),
    Fault(
        "relu-head-1-at-0", "relu′(0) = 1 in the output layer",
        "relu′(0) = 0", "err-relu-0",
        RELU_HEAD._replace(at_kink=True), has_head("regression_relu"), RULES._replace(output=_relu_at_0),
    ),
)  # fmt: skip
