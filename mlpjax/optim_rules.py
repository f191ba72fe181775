"""The update rules, each for one array: gradient and memory in, what is added to θ and the new memory out.

In the lecture's notation: ``dtheta`` = ∂J/∂θ at the newest point, α the learning rate, t = 1, 2, … the step's number;
the memories V, S, G, E and D have the shape of θ. Every function returns (Δθ, new memory …), and θ ← θ + Δθ.
The slides' S[t−1] and E[t−1] already hold dθ[t−1]: accumulate, then step. `mlpjax.optim` lifts the rules to trees.

A rule acts on each element alone, and lets NaN pass. A |dθ| above about 1e19 has the square ∞ in float32: the rules
that divide by its root stand still from then on, which clipping prevents.

Source: lecture, section *Optimisation*; ``opt-index-consistency``, ``opt-adagrad-notation``.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp

from mlpjax.shrinkage import soft_threshold

Scalar: TypeAlias = float | jax.Array
Memory1: TypeAlias = tuple[jax.Array, jax.Array]
Memory2: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]


def gradient_descent(dtheta: jax.Array, alpha: Scalar) -> tuple[jax.Array]:
    """Δθ = −α dθ. Source: ``opt-gd``.

    >>> gradient_descent(jnp.array([2.0, -4.0]), 0.5)
    (Array([-1.,  2.], dtype=float32),)
    """
    return (-alpha * dtheta,)


def momentum(dtheta: jax.Array, V: jax.Array, alpha: Scalar, beta: Scalar) -> Memory1:
    """V ← βV + (1 − β) dθ, an exponential average; Δθ = −αV.

    A constant g: V[t] = (1 − βᵗ) g. One that changes sign: |V| → g(1 − β)/(1 + β). 1 − β is the friction.
    Source: ``opt-momentum-v``, ``opt-momentum-theta``, ``opt-momentum-accelerate``, ``opt-momentum-damp``,
    ``opt-momentum-physics``.

    >>> momentum(jnp.array([4.0]), jnp.array([8.0]), 0.5, 0.75)
    (Array([-3.5], dtype=float32), Array([7.], dtype=float32))
    """
    V = beta * V + (1 - beta) * dtheta
    return -alpha * V, V


def heavy_ball(dtheta: jax.Array, V: jax.Array, alpha: Scalar, beta: Scalar) -> Memory1:
    """V ← βV + dθ; Δθ = −αV (Polyak 1964): `momentum` with a rate of α/(1 − β). Source: ``opt-momentum-heavyball``.

    >>> heavy_ball(jnp.array([4.0]), jnp.array([8.0]), 0.5, 0.75)
    (Array([-5.], dtype=float32), Array([10.], dtype=float32))
    """
    V = beta * V + dtheta
    return -alpha * V, V


def heavy_ball_rate_inside(dtheta: jax.Array, V: jax.Array, alpha: Scalar, beta: Scalar) -> Memory1:
    """V ← βV + α dθ; Δθ = −V: `heavy_ball`, but for an α that changes, which here acts on new gradients only.

    >>> heavy_ball_rate_inside(jnp.array([4.0]), jnp.array([8.0]), 0.5, 0.75)
    (Array([-8.], dtype=float32), Array([8.], dtype=float32))
    """
    V = beta * V + alpha * dtheta
    return -V, V


def nesterov(dtheta: jax.Array, V: jax.Array, alpha: Scalar, next_alpha: Scalar, beta: Scalar) -> Memory1:
    """V ← βV + (1 − β) dθ; Δ = −α(1 − β) dθ − α′βV, the step of the look-ahead point.

    θ here is the look-ahead point θ − αβV, at which ``dtheta`` is taken: with θ ← θ − αV, and α′ the rate of the next
    step, it goes from θ − αβV to θ − αV′ − α′βV′. Source: ``opt-nag-lookahead``, ``opt-nag``.

    >>> nesterov(jnp.array([4.0]), jnp.array([8.0]), 0.5, 0.5, 0.75)
    (Array([-3.125], dtype=float32), Array([7.], dtype=float32))
    """
    V = beta * V + (1 - beta) * dtheta
    return -alpha * (1 - beta) * dtheta - next_alpha * beta * V, V


def nesterov_heavy_ball(dtheta: jax.Array, V: jax.Array, alpha: Scalar, next_alpha: Scalar, beta: Scalar) -> Memory1:
    """V ← βV + dθ; Δ = −α dθ − α′βV: `nesterov` with a rate of α/(1 − β) (Sutskever et al. 2013).

    >>> nesterov_heavy_ball(jnp.array([4.0]), jnp.array([8.0]), 0.5, 0.5, 0.75)
    (Array([-5.75], dtype=float32), Array([10.], dtype=float32))
    """
    V = beta * V + dtheta
    return -alpha * dtheta - next_alpha * beta * V, V


def nesterov_rate_inside(dtheta: jax.Array, V: jax.Array, alpha: Scalar, beta: Scalar) -> Memory1:
    """V ← βV + α dθ; Δ = −α dθ − βV: `nesterov_heavy_ball`, but for an α that changes.

    >>> nesterov_rate_inside(jnp.array([4.0]), jnp.array([8.0]), 0.5, 0.75)
    (Array([-8.], dtype=float32), Array([8.], dtype=float32))
    """
    V = beta * V + alpha * dtheta
    return -alpha * dtheta - beta * V, V


def adagrad(dtheta: jax.Array, G: jax.Array, alpha: Scalar, eps: Scalar, *, eps_inside: bool = True) -> Memory1:
    """G ← G + dθ², the diagonal of the slide's matrix; Δθ = −α dθ/√(G + ε), or −α dθ/(√G + ε) with ε outside.

    Source: ``opt-adagrad-notation``, ``opt-adagrad-G``, ``opt-adagrad-theta``.

    >>> adagrad(jnp.array([4.0]), jnp.array([9.0]), 0.5, 0.0)
    (Array([-0.4], dtype=float32), Array([25.], dtype=float32))
    """
    G = G + dtheta * dtheta
    return -alpha * dtheta / _root(G, eps, eps_inside), G


def rmsprop(
    dtheta: jax.Array, S: jax.Array, alpha: Scalar, gamma: Scalar, eps: Scalar, *, eps_inside: bool = True
) -> Memory1:
    """S ← γS + (1 − γ) dθ²; Δθ = −α dθ/√(S + ε), or −α dθ/(√S + ε) with ε outside; the slides' AdaDelta too.

    Source: ``opt-rmsprop``, ``opt-adadelta-slide``, ``opt-index-consistency``.

    >>> rmsprop(jnp.array([4.0]), jnp.array([28.0]), 0.5, 0.75, 0.0)
    (Array([-0.4], dtype=float32), Array([25.], dtype=float32))
    """
    S = gamma * S + (1 - gamma) * dtheta * dtheta
    return -alpha * dtheta / _root(S, eps, eps_inside), S


def adadelta(dtheta: jax.Array, E: jax.Array, D: jax.Array, alpha: Scalar, rho: Scalar, eps: Scalar) -> Memory2:
    """E ← ρE + (1 − ρ) dθ²; Δ = −√(D + ε)/√(E + ε) dθ; D ← ρD + (1 − ρ)Δ²; Δθ = αΔ, with α = 1 in the paper.

    Source: ``opt-adadelta-paper`` (Zeiler 2012).

    >>> adadelta(jnp.array([4.0]), jnp.array([16.0]), jnp.array([4.0]), 1.0, 0.75, 0.0)
    (Array([-2.], dtype=float32), Array([16.], dtype=float32), Array([4.], dtype=float32))
    """
    E = rho * E + (1 - rho) * dtheta * dtheta
    delta = -jnp.sqrt(D + eps) / jnp.sqrt(E + eps) * dtheta
    D = rho * D + (1 - rho) * delta * delta
    return alpha * delta, E, D


def adam(
    dtheta: jax.Array,
    V: jax.Array,
    S: jax.Array,
    t: int | jax.Array,
    alpha: Scalar,
    beta1: Scalar = 0.9,
    beta2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> Memory2:
    """V̂ = V/(1 − β₁ᵗ), Ŝ = S/(1 − β₂ᵗ); Δθ = −αV̂/(√Ŝ + ε), with V and S as in `adam_slide`.

    Source: ``opt-adam-paper``, ``opt-adam-v``, ``opt-adam-s`` (Kingma & Ba 2015, algorithm 1).

    >>> delta, V, S = adam(jnp.array([4.0]), jnp.zeros(1), jnp.zeros(1), 1, 0.5, 0.75, 0.75)
    >>> delta.round(4), V, S
    (Array([-0.5], dtype=float32), Array([1.], dtype=float32), Array([4.], dtype=float32))
    """
    V, S = _averages(dtheta, V, S, beta1, beta2)
    V_hat, S_hat = V / _one_minus_power(beta1, t), S / _one_minus_power(beta2, t)
    return -alpha * V_hat / (jnp.sqrt(S_hat) + eps), V, S


def adam_slide(
    dtheta: jax.Array,
    V: jax.Array,
    S: jax.Array,
    alpha: Scalar,
    beta1: Scalar = 0.9,
    beta2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> Memory2:
    """V ← β₁V + (1 − β₁) dθ, S ← β₂S + (1 − β₂) dθ²; Δθ = −αV/√(S + ε): no bias correction, ε inside.

    β₁ = 0 is `rmsprop` with γ = β₂; S = 1 with β₂ = 1 and ε = 0 is `momentum`.
    Source: ``opt-adam-theta-slide``, ``opt-adam-composition``.

    >>> adam_slide(jnp.array([4.0]), jnp.zeros(1), jnp.zeros(1), 0.5, 0.75, 0.75)
    (Array([-0.25], dtype=float32), Array([1.], dtype=float32), Array([4.], dtype=float32))
    """
    V, S = _averages(dtheta, V, S, beta1, beta2)
    return -alpha * V / jnp.sqrt(S + eps), V, S


def adam_eps_hat(
    dtheta: jax.Array,
    V: jax.Array,
    S: jax.Array,
    t: int | jax.Array,
    alpha: Scalar,
    beta1: Scalar = 0.9,
    beta2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> Memory2:
    """Δθ = −α √(1 − β₂ᵗ)/(1 − β₁ᵗ) V/(√S + ε̂): `adam` with ε = ε̂/√(1 − β₂ᵗ), which is 32 ε̂ at t = 1.

    Source: ``opt-adam-paper`` (Kingma & Ba 2015, before section 2.1).

    >>> delta, V, S = adam_eps_hat(jnp.array([4.0]), jnp.zeros(1), jnp.zeros(1), 1, 0.5, 0.75, 0.75, eps=2.0)
    >>> delta.round(4), V, S
    (Array([-0.25], dtype=float32), Array([1.], dtype=float32), Array([4.], dtype=float32))
    """
    V, S = _averages(dtheta, V, S, beta1, beta2)
    rate = alpha * jnp.sqrt(_one_minus_power(beta2, t)) / _one_minus_power(beta1, t)
    return -rate * V / (jnp.sqrt(S) + eps), V, S


def coupled_decay(dtheta: jax.Array, theta: jax.Array, l2: Scalar) -> tuple[jax.Array]:
    """dθ + l2 θ, the gradient with the penalty (l2/2)θ²: what follows takes it for a gradient. Source: ``reg-l2-grad``.

    >>> coupled_decay(jnp.array([1.0]), jnp.array([4.0]), 0.5)
    (Array([3.], dtype=float32),)
    """
    return (dtheta + l2 * theta,)


def decoupled_decay(delta: jax.Array, theta: jax.Array, alpha: Scalar, l2: Scalar) -> tuple[jax.Array]:
    """Δθ − α l2 θ, beside what a rule has made of the gradient (Loshchilov & Hutter 2019).

    Source: ``reg-weight-decay``, ``err-l2-adam``.

    >>> decoupled_decay(jnp.array([1.0]), jnp.array([4.0]), 0.5, 0.5)
    (Array([0.], dtype=float32),)
    """
    return (delta - alpha * l2 * theta,)


def proximal_l1(delta: jax.Array, theta: jax.Array, alpha: Scalar, l1: Scalar) -> tuple[jax.Array]:
    """S(θ + Δθ, α l1) − θ, with the soft threshold S: θ plus it is exactly 0 where |θ + Δθ| ≤ α l1.

    Source: ``reg-lasso-prox``, ``reg-lasso-sparse``.

    >>> proximal_l1(jnp.array([-1.0, -1.0]), jnp.array([4.0, 1.2]), 0.5, 0.5)
    (Array([-1.25, -1.2 ], dtype=float32),)
    """
    return (soft_threshold(theta + delta, alpha * l1) - theta,)


def _averages(dtheta: jax.Array, V: jax.Array, S: jax.Array, beta1: Scalar, beta2: Scalar) -> Memory1:
    return beta1 * V + (1 - beta1) * dtheta, beta2 * S + (1 - beta2) * dtheta * dtheta


def _root(S: jax.Array, eps: Scalar, eps_inside: bool) -> jax.Array:
    return jnp.sqrt(S + eps) if eps_inside else jnp.sqrt(S) + eps


def _one_minus_power(beta: Scalar, t: int | jax.Array) -> jax.Array:
    """1 − βᵗ; the difference itself would lose four digits of 1 − 0.999 in float32."""
    if isinstance(beta, jax.Array):
        return -jnp.expm1(t * jnp.log(beta))
    return -jnp.expm1(t * (math.log(beta) if beta > 0 else -math.inf))
