"""Checks of the section *Types of problems*: the derivation of ∂L/∂z through softmax and cross-entropy."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.heads import sigmoid_cross_entropy_dz, softmax, softmax_cross_entropy_dz
from mlpjax.softmax_forms import cross_entropy_dyhat, quotient_rule, softmax_jacobian, softmax_steps, softmax_vjp


def _scores() -> Any:
    """Scores (4, 3)."""
    return np.random.default_rng(0).normal(size=(4, 3))


def _classes() -> Any:
    """One-hot rows (4, 3)."""
    return np.eye(3)[[0, 2, 1, 0]]


def _several() -> Any:
    """Rows (4, 3) with none, one, two and three classes true."""
    return np.array([[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]], float)


def _probabilities(z: np.ndarray) -> Any:
    e = np.exp(z)
    return e / e.sum(axis=1, keepdims=True)


@jax.jit
def _gradient(z: jax.Array, y: jax.Array) -> jax.Array:
    """∂L/∂z by autodiff of the loss as it is printed."""
    return jax.grad(lambda z: -jnp.sum(y * jnp.log(jnp.exp(z) / jnp.exp(z).sum(axis=1, keepdims=True))))(z)


def prob_mc_back_dyhat() -> Claim:
    """∂L/∂ŷ_c = −y_c/ŷ_c."""
    y, yhat = _classes(), _probabilities(_scores())
    by_jax = jax.jit(jax.grad(lambda yhat: -jnp.sum(y * jnp.log(yhat))))(yhat)
    return agree("against jax.grad", cross_entropy_dyhat(yhat, y), by_jax)


def prob_mc_quotient() -> tuple[Claim, ...]:
    """(f/g)′ = f′/g − f g′/g², with f = e^{z_c} and g = Σ_o e^{z_o}: it gives the Jacobian of softmax."""
    z = _scores()[0]
    e = np.exp(z)
    rows = [[quotient_rule(e[c], e[c] * (c == o), e.sum(), e[o]) for o in range(3)] for c in range(3)]
    by_jax = jax.jit(jax.grad(lambda t: jnp.sin(t) / (1 + t * t)))(0.7)
    by_rule = quotient_rule(math.sin(0.7), math.cos(0.7), 1 + 0.7**2, 2 * 0.7)
    return (
        agree("the Jacobian, entry by entry", rows, jax.jit(jax.jacobian(jax.nn.softmax))(z)),
        agree("sin t/(1 + t²) against jax.grad", by_rule, by_jax),
    )


def _jacobians() -> tuple[Any, Any, Any]:
    """ŷ (3,), our Jacobian there, and jax's of e^z/Σe^z."""
    z = _scores()[0]
    yhat = _probabilities(z[None])[0]
    by_jax = jax.jit(jax.jacobian(lambda z: jnp.exp(z) / jnp.exp(z).sum()))(z)
    return yhat, np.asarray(softmax_jacobian(jnp.asarray(yhat))), np.asarray(by_jax)


def prob_mc_jac_diag() -> tuple[Claim, ...]:
    """∂ŷ_c/∂z_c = ŷ_c(1 − ŷ_c)."""
    yhat, ours, by_jax = _jacobians()
    diagonal = np.diag(ours)
    return (
        agree("against jax.jacobian", diagonal, np.diag(by_jax)),
        agree("against ŷ(1 − ŷ)", diagonal, yhat * (1 - yhat)),
    )


def prob_mc_jac_off() -> tuple[Claim, ...]:
    """∂ŷ_c/∂z_o = −ŷ_c ŷ_o for c ≠ o."""
    yhat, ours, by_jax = _jacobians()
    off = ~np.eye(3, dtype=bool)
    return (
        agree("against jax.jacobian", ours[off], by_jax[off]),
        agree("against −ŷ_c ŷ_o", ours[off], -np.outer(yhat, yhat)[off]),
    )


def prob_mc_jac_props() -> tuple[Claim, ...]:
    """The Jacobian is symmetric, has no negative eigenvalue, and its rows sum to 0."""
    ours = _jacobians()[1]
    least = float(np.linalg.eigvalsh(ours)[0])
    return (
        equal("symmetric", ours, ours.T),
        holds("the least eigenvalue is 0", abs(least) < 1e-15, f"{least:.1e}"),
        holds("the others are positive", np.linalg.eigvalsh(ours)[1] > 0.01, float(np.linalg.eigvalsh(ours)[1])),
        agree("rows sum to 0", ours.sum(axis=1), np.zeros(3)),
    )


def prob_mc_back_split() -> tuple[Claim, ...]:
    """The chain rule over all classes, split into the class itself and the others, with the factors put in."""
    z, y = _scores(), _several()
    steps = jax.jit(softmax_steps)(z, y)
    return (
        agree("the chain against jax.grad", steps.chain, _gradient(z, y)),
        agree("split", steps.split, steps.chain),
        agree("with the factors", steps.factors, steps.split),
        agree(
            "as a product with the Jacobian", softmax_vjp(cross_entropy_dyhat(softmax(z), y), softmax(z)), steps.chain
        ),
    )


@printed("err-softmax-sum-y", lambda z, y: softmax(z) - y)
def prob_mc_back_simplify(form: Any = softmax_cross_entropy_dz) -> tuple[Claim, ...]:
    """Each line of the simplification equals the one before, whatever the labels; only Σ_c y_c = 1 gives ŷ − y."""
    z, y = _scores(), _several()
    steps = jax.jit(softmax_steps)(z, y)
    return (
        agree("cancelled", steps.cancelled, steps.factors),
        agree("expanded", steps.expanded, steps.cancelled),
        agree("collected", steps.collected, steps.expanded),
        agree("∂L/∂z for any labels", form(z, y), _gradient(z, y)),
    )


def prob_mc_back_dz() -> tuple[Claim, ...]:
    """∂L/∂z_o = ŷ_o − y_o for labels that sum to 1, one-hot or soft."""
    z = _scores()
    soft = jnp.array([[0.2, 0.5, 0.3], [1, 0, 0], [0.5, 0.5, 0], [0.1, 0.1, 0.8]])
    claims = []
    for name, y in (("one-hot", _classes()), ("soft", soft)):
        claims.append(agree(f"{name}, against jax.grad", softmax_cross_entropy_dz(z, y), _gradient(z, y)))
        claims.append(agree(f"{name}, last line of the slide", jax.jit(softmax_steps)(z, y).result, _gradient(z, y)))
    return tuple(claims)


def prob_mc_same_as_binary() -> tuple[Claim, ...]:
    """For two classes ∂L/∂z₁ of softmax is the logistic unit's at z₁ − z₂, and ∂L/∂z₂ its negative."""
    z, y = _scores()[:, :2], jnp.eye(2)[jnp.array([0, 1, 1, 0])]
    dz = softmax_cross_entropy_dz(z, y)
    unit = sigmoid_cross_entropy_dz(z[:, :1] - z[:, 1:], y[:, :1])
    return agree("∂L/∂z₁", dz[:, :1], unit), agree("∂L/∂z₂", dz[:, 1:], -unit)
