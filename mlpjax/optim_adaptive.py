"""AdaGrad, AdaDelta, RMSprop and Adam, as optax's gradient transformations.

Source: lecture, section *Optimisation*; the rules for one array are in `mlpjax.optim_rules`.
"""

from __future__ import annotations

import math

import optax

from mlpjax import optim_rules as rules
from mlpjax.optim_conventions import library_form
from mlpjax.optim_lift import Alpha, check_alpha, check_range, lift
from mlpjax.optim_rules import Scalar


def adagrad(
    alpha: Alpha,
    eps: Scalar | None = None,
    *,
    start: Scalar | None = None,
    convention: str | None = None,
) -> optax.GradientTransformation:
    """G ← G + dθ², from ``start`` = 0; θ ← θ − α dθ/√(G + ε), ε = 10⁻⁸.

    With a convention ε and the start are the library's: keras and optax start at 0.1; torch has ε outside the root.
    Raises as `gradient_descent`, for ε ≤ 0 and for a start below 0; sklearn has no AdaGrad.

    Source: ``opt-adagrad-G``, ``opt-adagrad-theta``, ``opt-adagrad-frequency``, ``opt-adagrad-shrink``.

    >>> rule = adagrad(0.5)
    >>> rule.update(2.0, rule.init(0.0))[0]
    Array(-0.5, dtype=float32)
    """
    c = library_form("adagrad", convention, eps=eps, start=start)
    _check(alpha, eps=c["eps"])
    check_range("start", c["start"], 0, math.inf)
    return lift(
        lambda step, dtheta, G: rules.adagrad(dtheta, G, step.alpha, c["eps"], eps_inside=c["eps_inside"]),
        alpha,
        G=c["start"],
    )


def adadelta(
    alpha: Alpha | None = None,
    rho: Scalar | None = None,
    eps: Scalar | None = None,
    *,
    convention: str | None = None,
) -> optax.GradientTransformation:
    """E ← ρE + (1 − ρ) dθ²; Δ = −√(D + ε)/√(E + ε) dθ; D ← ρD + (1 − ρ)Δ²; θ ← θ + αΔ: α = 1, ρ = 0.95, ε = 10⁻⁶.

    The first step is −√(ε/(1 − ρ)) sign(dθ), whatever the gradient. With a convention the constants are the library's.
    Raises as `gradient_descent`, for ρ outside [0, 1) and ε ≤ 0; sklearn has no AdaDelta.

    Source: ``opt-adadelta-paper`` (Zeiler 2012).

    >>> rule = adadelta()
    >>> rule.update(2.0, rule.init(0.0))[0].round(6)
    Array(-0.004472, dtype=float32)
    """
    c = library_form("adadelta", convention, alpha=alpha, rho=rho, eps=eps)
    _check(c["alpha"], rho=c["rho"], eps=c["eps"])
    return lift(
        lambda step, dtheta, E, D: rules.adadelta(dtheta, E, D, step.alpha, c["rho"], c["eps"]),
        c["alpha"],
        E=0.0,
        D=0.0,
    )


def adadelta_slide(alpha: Alpha, gamma: Scalar = 0.9, eps: Scalar = 1e-8) -> optax.GradientTransformation:
    """E ← γE + (1 − γ) dθ²; θ ← θ − α dθ/√(E + ε): the slide's AdaDelta is `rmsprop`, with its S called E.

    Source: ``opt-adadelta-slide``.

    >>> rule = adadelta_slide(0.1, gamma=0.75)
    >>> rule.update(2.0, rule.init(0.0))[0]
    Array(-0.2, dtype=float32)
    """
    _check(alpha, gamma=gamma, eps=eps)
    return lift(lambda step, dtheta, E: rules.rmsprop(dtheta, E, step.alpha, gamma, eps), alpha, E=0.0)


def rmsprop(
    alpha: Alpha,
    gamma: Scalar | None = None,
    eps: Scalar | None = None,
    *,
    convention: str | None = None,
) -> optax.GradientTransformation:
    """S ← γS + (1 − γ) dθ², S[0] = 0; θ ← θ − α dθ/√(S + ε): γ = 0.9, ε = 10⁻⁸.

    The first step is α/√(1 − γ) long. With a convention the constants are the library's; torch has ε outside the root.
    Raises as `gradient_descent`, for γ outside [0, 1) and ε ≤ 0; sklearn has no RMSprop.

    Source: ``opt-rmsprop``, ``opt-rmsprop-axes``, ``opt-rmsprop-first-step``.

    >>> rule = rmsprop(0.1, gamma=0.75)
    >>> rule.update(2.0, rule.init(0.0))[0]
    Array(-0.2, dtype=float32)
    """
    c = library_form("rmsprop", convention, gamma=gamma, eps=eps)
    _check(alpha, gamma=c["gamma"], eps=c["eps"])
    return lift(
        lambda step, dtheta, S: rules.rmsprop(dtheta, S, step.alpha, c["gamma"], c["eps"], eps_inside=c["eps_inside"]),
        alpha,
        S=0.0,
    )


def adam(
    alpha: Alpha,
    beta1: Scalar = 0.9,
    beta2: Scalar = 0.999,
    eps: Scalar | None = None,
    *,
    convention: str | None = None,
) -> optax.GradientTransformation:
    """V ← β₁V + (1 − β₁) dθ, S ← β₂S + (1 − β₂) dθ²; θ ← θ − αV̂/(√Ŝ + ε), V̂ = V/(1 − β₁ᵗ), Ŝ = S/(1 − β₂ᵗ).

    ε = 10⁻⁸; with a convention the library's: keras and sklearn add it to the uncorrected root √S.
    Raises as `gradient_descent`, for β outside [0, 1) and ε ≤ 0.

    Source: ``opt-adam-paper``, ``opt-adam-v``, ``opt-adam-s``, ``opt-adam-hparams``, ``opt-adam-bias`` (Kingma & Ba
    2015).

    >>> rule = adam(0.5)
    >>> rule.update(2.0, rule.init(0.0))[0].round(4)
    Array(-0.5, dtype=float32)
    """
    c = library_form("adam", convention, eps=eps)
    _check(alpha, beta1=beta1, beta2=beta2, eps=c["eps"])
    rule = rules.adam_eps_hat if c["eps_hat"] else rules.adam
    return lift(
        lambda step, dtheta, V, S: rule(dtheta, V, S, step.t, step.alpha, beta1, beta2, c["eps"]), alpha, V=0.0, S=0.0
    )


def adam_slide(
    alpha: Alpha, beta1: Scalar = 0.9, beta2: Scalar = 0.999, eps: Scalar = 1e-8
) -> optax.GradientTransformation:
    """V and S as in `adam`; θ ← θ − αV/√(S + ε): without bias correction, ε inside, as on the slide.

    Under a constant gradient step t is α(1 − β₁ᵗ)/√(1 − β₂ᵗ): 3.16 α at first, 6.57 α at t = 12. No library has it.

    Source: ``opt-adam-theta-slide``, ``opt-adam-composition``, ``opt-adam-bias``.

    >>> rule = adam_slide(0.1)
    >>> rule.update(2.0, rule.init(0.0))[0].round(4)
    Array(-0.3162, dtype=float32)
    """
    _check(alpha, beta1=beta1, beta2=beta2, eps=eps)
    return lift(
        lambda step, dtheta, V, S: rules.adam_slide(dtheta, V, S, step.alpha, beta1, beta2, eps), alpha, V=0.0, S=0.0
    )


def _check(alpha: Alpha, eps: Scalar, **decays: Scalar) -> None:
    check_alpha(alpha)
    check_range("eps", eps, 0, math.inf, above=True)
    for name, value in decays.items():
        check_range(name, value, 0, 1)
