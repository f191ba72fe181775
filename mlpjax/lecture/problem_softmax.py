"""Checks of the section *Types of problems*: multi-class classification with softmax, forward."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mlpjax
from mlpjax import toys
from mlpjax.activations import sigmoid
from mlpjax.cases import network
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.heads import softmax, softmax_cross_entropy, softmax_cross_entropy_dz
from mlpjax.layers import affine_forward
from mlpjax.softmax_forms import (
    log_odds,
    logistic_as_softmax,
    reduced_weights,
    shift_weights,
    softmax_as_logistic,
    softmax_reduced,
)
from mlpjax.targets import target_matrix


def _rows() -> tuple[Any, Any, Any]:
    """Inputs (4, 3), weights (3, 3) and scores (4, 3)."""
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
    return x, W, x @ W


def _classes() -> Any:
    """One-hot rows (4, 3)."""
    return np.eye(3)[[0, 2, 1, 0]]


def _several() -> Any:
    """Rows (4, 3) with none, one, two and three classes true."""
    return np.array([[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]], float)


def _probabilities(z: Any) -> Any:
    e = np.exp(np.asarray(z))
    return e / e.sum(axis=1, keepdims=True)


@printed("err-mc-exclusive", _several)
def prob_mc_model(labels: Any = _classes) -> tuple[Claim, ...]:
    """The classes exclude each other: rows of Ŷ and Y sum to 1, and only then is ∂L/∂z = ŷ − y."""
    config = mlpjax.Config(sizes=(3, 3), bias=False)
    x, W, z = _rows()
    y = labels()
    yhat = jax.jit(mlpjax.predict)(config, (mlpjax.Layer(W=jnp.asarray(W)),), (), x)
    try:
        target_matrix("multiclass", _several(), 3, float)
        refused = False
    except mlpjax.DataError:
        refused = True
    return (
        agree("Σ_c ŷ_c", yhat.sum(axis=1), np.ones(4)),
        agree("∂L/∂z", softmax_cross_entropy_dz(z, y), _probabilities(z) - y),
        holds("several classes at once are refused", refused, refused),
    )


def prob_mc_loss() -> tuple[Claim, ...]:
    """L = −Σ_c y_c log ŷ_c, from scores; integer and one-hot labels are the same."""
    _, _, z = _rows()
    y = _classes()
    loss = softmax_cross_entropy(z, y)
    return (
        agree("against −Σ y log ŷ, NumPy", loss, -(y * np.log(_probabilities(z))).sum(axis=1)),
        agree("against optax, integers", loss, optax.softmax_cross_entropy_with_integer_labels(z, y.argmax(axis=1))),
        equal("integers as one-hot rows", target_matrix("multiclass", y.argmax(axis=1), 3, float), y),
    )


@printed("err-softmax-overflow", lambda z: jnp.exp(z) / jnp.sum(jnp.exp(z), axis=1, keepdims=True))
def prob_mc_softmax(form: Any = softmax) -> tuple[Claim, ...]:
    """e^{z_o}/Σ_c e^{z_c}, also where e^z is no number any more."""
    _, _, z = _rows()
    return (
        agree("against NumPy", form(z), _probabilities(z)),
        equal("at (1000, 0, 0)", form(jnp.array([[1000.0, 0, 0]])), [[1, 0, 0]]),
    )


def prob_mc_redundancy() -> tuple[Claim, ...]:
    """One ψ taken from every class's vector changes no probability; a ψ for one class alone does."""
    x, W, z = _rows()
    psi = np.array([3.0, -2.0, 5.0])
    one = W - psi[:, None] * np.array([1.0, 0, 0])
    return (
        agree("P after W − ψ1ᵀ", softmax(x @ shift_weights(W, jnp.asarray(psi))), _probabilities(z)),
        holds("P after ψ on class 1", np.abs(softmax(x @ one) - _probabilities(z)).max() > 0.1, "differs"),
    )


def prob_mc_hessian_null() -> tuple[Claim, ...]:
    """The cost is flat along ψ1ᵀ: the Hessian times it is 0, and dW sums to 0 over the classes."""
    x, W, _ = _rows()
    config = mlpjax.Config(sizes=(3, 3), bias=False)
    batch = mlpjax.Batch(x, _classes().argmax(axis=1))

    def dW(W: jax.Array) -> jax.Array:
        return mlpjax.backward(config, (mlpjax.Layer(W=W),), (), batch)[1][0].W

    @jax.jit
    def along(direction: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(dW, (jnp.asarray(W),), (direction,))

    gradient, flat = along(np.array([[3.0], [-2.0], [5.0]]) * np.ones((1, 3)))
    curved = along(np.eye(3))[1]
    return (
        agree("H ψ1ᵀ", flat, np.zeros((3, 3))),
        agree("Σ_o dW", gradient.sum(axis=1), np.zeros(3)),
        holds("in another direction H is not 0", np.abs(curved).max() > 1e-2, float(np.abs(curved).max())),
    )


@printed("err-softmax-reparam", lambda W: W[:, :-1])
def prob_mc_psi_wK(form: Any = reduced_weights) -> Claim:
    """With v_o = w_o − w_K, K − 1 scores give the probabilities of the first K − 1 classes."""
    x, W, z = _rows()
    return agree("P(o), o < K", softmax_reduced(x @ form(W))[:, :-1], _probabilities(z)[:, :-1])


@printed("err-softmax-reparam", lambda W: W[:, :-1])
def prob_mc_psi_PK(form: Any = reduced_weights) -> tuple[Claim, ...]:
    """Class K has what is left, 1/(1 + Σ_c e^{v_c}), also at scores of any size."""
    x, W, z = _rows()
    v = x @ form(W)
    last = softmax_reduced(v)[:, -1]
    return (
        agree("P(K) against softmax", last, _probabilities(z)[:, -1]),
        agree("P(K) against 1/(1 + Σ e^v)", last, 1 / (1 + np.exp(v).sum(axis=1))),
        equal("at v = ±10⁴", softmax_reduced(jnp.array([[1e4], [-1e4]]))[:, -1], [0, 1]),
    )


def prob_mc_sum1() -> tuple[Claim, ...]:
    """The probabilities of the classes sum to 1, in both forms and over a wide range."""
    z = jnp.asarray(np.random.default_rng(0).uniform(-300, 300, (50, 4)))
    return (
        agree("softmax", softmax(z).sum(axis=1), np.ones(50)),
        agree("the reduced form", softmax_reduced(z).sum(axis=1), np.ones(50)),
    )


@printed("err-softmax-logodds", lambda z: z)
def prob_mc_logodds(form: Any = log_odds) -> tuple[Claim, ...]:
    """log(P(o)/P(K)) = (w_o − w_K)·x: the log-odds are linear in x, with the difference of the vectors."""
    x, W, z = _rows()
    p = _probabilities(z)
    return (
        agree("against log(P(o)/P(K))", form(z), np.log(p / p[:, -1:])),
        agree("against (w_o − w_K)·x", form(z), x @ (W - W[:, -1:])),
    )


def _two() -> tuple[Any, Any, Any]:
    """Inputs (4, 3), and the weights (3, 2) and biases (2,) of two classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)


def prob_mc_k2_p1() -> tuple[Claim, ...]:
    """Two classes: P(1) = σ((w₁ − w₂)·x + b₁ − b₂); either class can be the positive one."""
    x, W, b = _two()
    p = _probabilities(x @ W + b)
    (w, bias), (w_other, b_other) = softmax_as_logistic(W, b), softmax_as_logistic(W, b, positive=1)
    return (
        agree("P(1)", sigmoid(x @ w + bias), p[:, 0]),
        agree("P(2), as the positive class", sigmoid(x @ w_other + b_other), p[:, 1]),
    )


def prob_mc_k2_p2() -> tuple[Claim, ...]:
    """Two classes: P(2) = e^{(w₂ − w₁)·x}/(1 + e^{(w₂ − w₁)·x}) = 1 − P(1), and a logistic unit back as a softmax."""
    x, W, b = _two()
    w, bias = softmax_as_logistic(W, b)
    second = softmax(x @ W + b)[:, 1]
    odds = np.exp(-(x @ w + bias))
    back = logistic_as_softmax(w, bias)
    return (
        agree("against e^u/(1 + e^u)", second, odds / (1 + odds)),
        agree("against 1 − P(1)", second, 1 - sigmoid(x @ w + bias)),
        agree("softmax of (w, 0)", softmax(x @ back[0] + back[1][None, :])[:, 1], second),
    )


def prob_mc_k2_training() -> tuple[Claim, ...]:
    """One step on the softmax moves w₁ − w₂ as a logistic step with twice the learning rate moves w."""
    x, W, b = _two()
    y = np.array([0, 1, 1, 0])
    two, one = mlpjax.Config(sizes=(3, 2)), mlpjax.Config(sizes=(3, 1), head="binary")
    w, bias = softmax_as_logistic(W, b)
    backward = jax.jit(mlpjax.backward)
    _, grads = backward(two, (mlpjax.Layer(jnp.asarray(W), b),), (), mlpjax.Batch(x, y))
    # class 0 is the positive one
    _, unit = backward(one, (mlpjax.Layer(jnp.asarray(w[:, None]), bias[None]),), (), mlpjax.Batch(x, 1 - y))
    w_after, b_after = softmax_as_logistic(W - 0.1 * grads[0].W, b - 0.1 * grads[0].b)
    return (
        agree("w₁ − w₂ after the step", w_after, w - 0.2 * unit[0].W[:, 0]),
        agree("b₁ − b₂ after the step", b_after, bias - 0.2 * unit[0].b[0]),
    )


@printed("err-softmax-bias", lambda x, W, b: x @ W)
@printed("err-ml-bias", lambda x, W, b: x @ W)
def prob_mc_forward(form: Any = lambda x, W, b: affine_forward(x, W, b)[0]) -> tuple[Claim, ...]:
    """z_o = Σ_h w_ho a_h + b_o, then softmax: what the network predicts."""
    config = mlpjax.Config(sizes=(3, 4, 3), activation="sigmoid")
    params, state = network(config)
    (W1, b1), (W2, b2) = (map(np.asarray, layer[:2]) for layer in params)
    x = _rows()[0]
    a = 1 / (1 + np.exp(-(x @ W1 + b1)))
    z = form(jnp.asarray(a), *params[1][:2])
    loops = [[sum(float(a[i, h] * W2[h, o]) for h in range(4)) for o in range(3)] for i in range(4)]
    return (
        agree("z_o, sum by sum", z, np.array(loops) + b2),
        agree("ŷ of the network", jax.jit(mlpjax.predict)(config, params, state, x), _probabilities(z)),
    )


def prob_mc_decision() -> tuple[Claim, ...]:
    """The class is that of the largest probability, which is that of the largest score; a tie goes to the lower."""
    config = mlpjax.Config(sizes=(3, 3))
    z = jnp.asarray(np.random.default_rng(0).normal(size=(50, 3)))
    return (
        equal("argmax ŷ = argmax z", mlpjax.decide(config, softmax(z)), z.argmax(axis=1)),
        equal("a tie", mlpjax.decide(config, jnp.array([[0.2, 0.4, 0.4]])), [1]),
    )


def prob_mc_pictures() -> tuple[Claim, ...]:
    """Five classes of which exactly one is true: one-hot rows, which a softmax on raw inputs can tell apart."""
    x, y = toys.blobs(500)
    rows = np.asarray(target_matrix("multiclass", y, 5, float))
    centres = 4 * np.array([[math.sin(2 * math.pi * k / 5), math.cos(2 * math.pi * k / 5)] for k in range(5)])
    # ‖x − c‖² is least where c·x is largest, as all centres have one norm: a linear score
    right = float(np.mean(mlpjax.decide(mlpjax.Config(sizes=(2, 5)), softmax(x @ centres.T)) == y))
    return (
        equal("true classes per example", rows.sum(axis=1), np.ones(500)),
        equal("examples per class", rows.sum(axis=0), np.full(5, 100)),
        holds("decided by linear scores", right > 0.99, f"{right:.3f} right"),
    )
