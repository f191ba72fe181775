"""Checks of the section *Types of problems*: several labels at once."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mlpjax
from mlpjax import toys
from mlpjax.activations import sigmoid, sigmoid_derivative
from mlpjax.cases import network
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.heads import sigmoid_cross_entropy, sigmoid_cross_entropy_dz
from mlpjax.likelihood import bernoulli_logpmf
from mlpjax.logistic_unit import bce_da
from mlpjax.multilabel import label_scores, multilabel_steps


def _scores(m: int = 4) -> tuple[Any, Any]:
    """Scores and labels ``(m, 3)``."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(m, 3)), rng.integers(0, 2, (m, 3)).astype(float)


def _logistic(z: np.ndarray) -> Any:
    return 1 / (1 + np.exp(-z))


def prob_ml_model() -> tuple[Claim, ...]:
    """n_L labels are n_L logistic heads on shared hidden units: costs and gradients add up."""
    config = mlpjax.Config(sizes=(3, 4, 2), activation="sigmoid", head="multilabel")
    params, state = network(config)
    W2, b2 = map(np.asarray, params[1][:2])
    x, y = np.random.default_rng(0).normal(size=(5, 3)), _scores(5)[1][:, :2]
    (J, _), (hidden, output) = jax.jit(mlpjax.backward)(config, params, state, mlpjax.Batch(x, y))
    single = mlpjax.Config(sizes=(3, 4, 1), activation="sigmoid", head="binary")
    backward, parts = jax.jit(mlpjax.backward), []
    for o in range(2):
        head = mlpjax.Layer(W=jnp.asarray(W2[:, o : o + 1]), b=jnp.asarray(b2[o : o + 1]))
        parts.append(backward(single, (params[0], head), state, mlpjax.Batch(x, y[:, o])))
    return (
        agree("J is the sum", J, sum(part[0][0] for part in parts)),
        agree("dW of the hidden layer is the sum", hidden.W, sum(part[1][0].W for part in parts)),
        agree("dW of the outputs, side by side", output.W, np.hstack([part[1][1].W for part in parts])),
    )


@printed("err-ml-sign", lambda z, y: jnp.sum(y * jnp.log(sigmoid(z)) + (1 - y) * jnp.log(1 - sigmoid(z)), axis=1))
def prob_ml_loss(form: Any = sigmoid_cross_entropy) -> tuple[Claim, ...]:
    """The loss sums the binary cross-entropies of the labels, with a minus: it is ≥ 0."""
    z, y = _scores()
    return (
        agree(
            "against −Σ_o log P(y_o), NumPy",
            form(z, y),
            -np.log(np.where(y == 1, _logistic(z), _logistic(-z))).sum(axis=1),
        ),
        agree("against optax", form(z, y), optax.sigmoid_binary_cross_entropy(z, y).sum(axis=1)),
        holds("never negative", np.min(form(z, y)) >= 0, float(np.min(form(z, y)))),
    )


def _example() -> tuple[Any, ...]:
    """The arguments of `multilabel_steps`: 3 inputs, 4 hidden units, 2 labels."""
    rng: Any = np.random.default_rng(0)
    x, W1, b1, W2, b2 = (rng.normal(size=shape) for shape in ((3,), (3, 4), (4,), (4, 2), (2,)))
    return (mlpjax.Layer(W1, b1), mlpjax.Layer(W2, b2)), x, np.array([1.0, 0.0])


def _network() -> tuple[Any, ...]:
    """The arguments of `mlpjax.autodiff` for the same example."""
    params, x, y = _example()
    config = mlpjax.Config(sizes=(3, 4, 2), activation="sigmoid", head="multilabel")
    return config, jax.tree.map(jnp.asarray, params), (), mlpjax.Batch(x[None, :], y[None, :])


def _without_b(params: mlpjax.Params, x: Any, y: Any) -> Any:
    return multilabel_steps(tuple(layer._replace(b=0 * layer.b) for layer in params), x, y)


@printed("err-ml-bias", _without_b)
def prob_ml_forward_hidden(form: Any = multilabel_steps) -> tuple[Claim, ...]:
    """z_h = Σ_i w_ih x_i + b_h and a_h = σ(z_h), unit by unit; the slide leaves b out."""
    params, x, y = _example()
    W1, b1 = params[0][:2]
    z = [sum(float(W1[i, h] * x[i]) for i in range(3)) + float(b1[h]) for h in range(4)]
    steps = form(params, x, y)
    return agree("z_h", steps.z_h, z), agree("a_h", steps.a_h, [1 / (1 + math.exp(-z_h)) for z_h in z])


@printed("err-ml-bias", _without_b)
def prob_ml_forward_out(form: Any = multilabel_steps) -> tuple[Claim, ...]:
    """z_o = Σ_h w_ho a_h + b_o and ŷ_o = σ(z_o): what the network predicts; the slide leaves b out."""
    params, x, y = _example()
    steps, (W2, b2) = form(params, x, y), params[1][:2]
    z = [sum(float(W2[h, o] * steps.a_h[h]) for h in range(4)) + float(b2[o]) for o in range(2)]
    *network_of_it, batch = _network()
    yhat = jax.jit(mlpjax.predict)(*network_of_it, batch.x)[0]
    return agree("z_o", steps.z_o, z), agree("ŷ against the network's", steps.yhat, yhat)


def prob_ml_back_chain() -> Claim:
    """∂L/∂w_ho is the product of three derivatives, each taken by jax alone."""
    params, x, y = _example()
    steps, (W2, b2) = multilabel_steps(params, x, y), params[1][:2]
    dyhat = jax.jit(jax.grad(lambda yhat: -jnp.sum(y * jnp.log(yhat) + (1 - y) * jnp.log(1 - yhat))))(steps.yhat)
    slope = jax.jit(jax.grad(lambda z: jnp.sum(1 / (1 + jnp.exp(-z)))))(steps.z_o)
    dz_dw = jax.jit(jax.jacobian(lambda W2: steps.a_h @ W2 + b2))(W2)
    return agree("dW[2]", steps.dW2, np.einsum("o,o,oho->ho", dyhat, slope, dz_dw))


def prob_ml_back_dyhat() -> tuple[Claim, ...]:
    """∂L/∂ŷ_o in its two forms, against the derivative of −log P(y_o)."""
    yhat, y = _logistic(_scores()[0]), _scores()[1]
    dyhat = bce_da(yhat, y)
    return (
        agree("against (ŷ − y)/(ŷ(1 − ŷ))", dyhat, (yhat - y) / (yhat * (1 - yhat))),
        agree("against jax.grad", dyhat, jax.jit(jax.grad(lambda p: -jnp.sum(bernoulli_logpmf(y, p))))(yhat)),
    )


def prob_ml_back_sigmoid() -> tuple[Claim, ...]:
    """∂ŷ_o/∂z_o = ŷ_o(1 − ŷ_o)."""
    z = _scores()[0]
    slope = sigmoid_derivative(z)
    return (
        agree("against ŷ(1 − ŷ)", slope, _logistic(z) * (1 - _logistic(z))),
        agree("against jax.grad", slope, jax.jit(jax.grad(lambda z: jnp.sum(1 / (1 + jnp.exp(-z)))))(z)),
    )


def prob_ml_back_dz() -> tuple[Claim, ...]:
    """∂L/∂z_o = ŷ_o − y_o: the two factors before it multiplied, and jax.grad."""
    z, y = _scores()
    dz = sigmoid_cross_entropy_dz(z, y)
    return (
        agree("against ∂L/∂ŷ · ∂ŷ/∂z", dz, bce_da(sigmoid(z), y) * sigmoid_derivative(z)),
        agree("against ŷ − y", dz, _logistic(z) - y),
        agree("against jax.grad", dz, jax.jit(jax.grad(lambda z: jnp.sum(sigmoid_cross_entropy(z, y))))(z)),
    )


def prob_ml_back_dzdw() -> tuple[Claim, ...]:
    """∂z_o/∂w_ho = a_h, and 0 with respect to the weights of another output."""
    (hidden, output), x, y = _example()
    jacobian = jax.jit(jax.jacobian(lambda W: multilabel_steps((hidden, output._replace(W=W)), x, y).z_o))(output.W)
    a_h = multilabel_steps((hidden, output), x, y).dz_dw
    return (
        agree("its own weights", jacobian[0, :, 0], a_h),
        agree("another output's weights", jacobian[0, :, 1], np.zeros(4)),
    )


def prob_ml_back_dW2() -> tuple[Claim, ...]:
    """∂L/∂w_ho = (ŷ_o − y_o) a_h."""
    steps = multilabel_steps(*_example())
    y = np.array([1.0, 0.0])
    return (
        agree("against (ŷ_o − y_o) a_h", steps.dW2, np.outer(steps.a_h, steps.yhat - y)),
        agree("against jax.grad", steps.dW2, jax.jit(mlpjax.autodiff)(*_network())[1][1].W),
    )


def prob_ml_back_dW1() -> tuple[Claim, ...]:
    """∂L/∂w_ih = Σ_o (ŷ_o − y_o) w_ho a_h(1 − a_h) x_i."""
    params, x, y = _example()
    steps, W2 = multilabel_steps(params, x, y), params[1].W
    back = [sum(float((steps.yhat[o] - y[o]) * W2[h, o]) for o in range(2)) for h in range(4)]
    return (
        agree("against the slide's sum", steps.dW1, np.outer(x, back * np.asarray(steps.a_h * (1 - steps.a_h)))),
        agree("against jax.grad", steps.dW1, jax.jit(mlpjax.autodiff)(*_network())[1][0].W),
    )


def prob_ml_decision() -> tuple[Claim, ...]:
    """A label is on from ŷ_o = ½ upwards, any number of them; the scores of a hand example."""
    config = mlpjax.Config(sizes=(2, 3), head="multilabel")
    z = jnp.array([[0.0, -0.1, 2.0], [-1.0, -2.0, -3.0], [1.0, 1.0, 1.0]])
    decided = mlpjax.decide(config, sigmoid(z))
    scores = label_scores(decided, np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0]]))
    return (
        equal("on where z ≥ 0", decided, z >= 0),
        equal("labels per example", np.sum(decided, axis=1), [2, 0, 3]),
        agree("exact match, Hamming loss, micro-F1", [*scores[:2], scores.micro_f1], [1 / 3, 2 / 9, 8 / 10]),
    )


def prob_ml_pictures() -> tuple[Claim, ...]:
    """Five labels of which none to all are true at once; a decision can be right on each."""
    x, y = toys.discs(500)
    centres = np.array([[math.sin(2 * math.pi * o / 5), math.cos(2 * math.pi * o / 5)] for o in range(5)])
    on = [np.hypot(*(x - 2 * centre).T) < 3 for centre in centres]
    return (
        equal("how many labels are on", sorted(set(y.sum(axis=1))), range(6)),
        equal("a label is its disc", y, np.stack(on, axis=1)),
    )
