"""Gradient descent, momentum and Nesterov, as optax's gradient transformations.

Source: lecture, section *Optimisation*; the rules for one array are in `mlpjax.optim_rules`.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from mlpjax import optim_rules as rules
from mlpjax.errors import ConfigError, InputError, unknown_name
from mlpjax.optim_conventions import library_form
from mlpjax.optim_lift import Alpha, RuleState, check_alpha, check_range, lift
from mlpjax.optim_rules import Scalar

MomentumForm = Literal["ema", "heavy_ball"]


def gradient_descent(alpha: Alpha, *, convention: str | None = None) -> optax.GradientTransformation:
    """θ ← θ − α dθ; the same in every library.

    Raises:
        ConfigError: for an α that is not a finite number ≥ 0, or an unknown convention; so for every optimiser here.

    Source: ``opt-gd``.

    >>> rule = gradient_descent(0.5)
    >>> rule.update(2.0, rule.init(0.0))[0]
    Array(-1., dtype=float32)
    """
    check_alpha(alpha)
    library_form("sgd", convention)
    return lift(lambda step, dtheta: rules.gradient_descent(dtheta, step.alpha), alpha)


def momentum(
    alpha: Alpha, beta: Scalar = 0.9, *, form: MomentumForm | None = None, convention: str | None = None
) -> optax.GradientTransformation:
    """V ← βV + (1 − β) dθ, V[0] = 0; θ ← θ − αV: steps of α(1 − β) times the heavy ball's.

    Args:
        alpha: the learning rate.
        beta: the friction is 1 − β.
        form: ``"ema"``, the above, by default; ``"heavy_ball"``: V ← βV + dθ.
        convention: the library's form instead; keras and sklearn keep α inside V.

    Raises:
        ConfigError: for β outside [0, 1), an unknown form, or a form beside a convention.

    Source: ``opt-momentum-v``, ``opt-momentum-theta``, ``opt-momentum-beta``, ``opt-momentum-heavyball``.

    >>> rule = momentum(1.0, 0.75)
    >>> rule.update(2.0, rule.init(0.0))[0]
    Array(-0.5, dtype=float32)
    """
    check_alpha(alpha)
    check_range("beta", beta, 0, 1)
    rule = {
        "ema": rules.momentum,
        "heavy_ball": rules.heavy_ball,
        "rate_inside": rules.heavy_ball_rate_inside,
    }[_momentum_form("momentum", form, convention)]
    return lift(lambda step, dtheta, V: rule(dtheta, V, step.alpha, beta), alpha, V=0.0)


def nesterov(
    alpha: Alpha, beta: Scalar = 0.9, *, form: MomentumForm | None = None, convention: str | None = None
) -> optax.GradientTransformation:
    """V ← βV + (1 − β) ∂J(θ − αβV)/∂θ, V[0] = 0; θ ← θ − αV: the gradient is taken where momentum will carry θ.

    The parameters that are trained **are** the look-ahead point θ − αβV, at which any gradient function then takes the
    gradient; `look_back` recovers θ. Under a schedule the look-ahead has the α of the step to come.

    Args:
        alpha: the learning rate.
        beta: the friction is 1 − β.
        form: ``"ema"``, the above, by default; ``"heavy_ball"`` without the 1 − β.
        convention: the library's form instead: a heavy ball, which in torch and optax looks ahead with the α of the
            step taken, and in keras and sklearn keeps α inside V.

    Raises:
        ConfigError: for β outside [0, 1), an unknown form, or a form beside a convention.

    Source: ``opt-nag-lookahead``, ``opt-nag``, ``opt-nag-compare``.

    >>> rule = nesterov(1.0, 0.75)
    >>> rule.update(2.0, rule.init(0.0))[0]
    Array(-0.875, dtype=float32)
    """
    check_alpha(alpha)
    check_range("beta", beta, 0, 1)
    chosen = _momentum_form("nesterov", form, convention)
    if chosen == "rate_inside":
        return lift(
            lambda step, dtheta, V: rules.nesterov_rate_inside(dtheta, V, step.alpha, beta),
            alpha,
            ahead=lambda step: beta,
            V=0.0,
        )
    rule = rules.nesterov if chosen == "ema" else rules.nesterov_heavy_ball

    def next_alpha(step: Any) -> Any:
        return step.alpha if chosen == "one_rate" else step.next_alpha

    return lift(
        lambda step, dtheta, V: rule(dtheta, V, step.alpha, next_alpha(step), beta),
        alpha,
        ahead=lambda step: next_alpha(step) * beta,
        V=0.0,
    )


def look_back(params: Any, opt_state: Any) -> Any:
    """θ from the look-ahead point that `nesterov` trains: θ = params + αβV, with the state from anywhere in a chain.

    Under a schedule torch's and optax's forms look ahead with the α of the step before: there it is not quite θ.

    Raises:
        InputError: if there is no state of `nesterov` in ``opt_state``.

    Source: ``opt-nag-lookahead``.

    >>> rule = nesterov(1.0, 0.75)
    >>> update, opt_state = rule.update(2.0, rule.init(0.0))
    >>> look_back(update, opt_state)  # −αV[1]
    Array(-0.5, dtype=float32)
    """

    def is_ahead(node: Any) -> bool:
        return isinstance(node, RuleState) and node.ahead is not None

    states = [node for node in jax.tree.leaves(opt_state, is_leaf=is_ahead) if is_ahead(node)]
    if not states:
        raise InputError(
            "opt_state has no look-ahead: expected the state of mlpjax.optim.nesterov, alone or in a chain"
        )
    for state in states:
        # V has no array where a mask left the parameters to another optimiser
        params = jax.tree.map(
            lambda V, theta, ahead=state.ahead: (
                theta if isinstance(V, optax.MaskedNode) else (theta + ahead * V).astype(jnp.result_type(theta))
            ),
            state.V,
            params,
            is_leaf=lambda node: isinstance(node, optax.MaskedNode),
        )
    return params


def _momentum_form(rule: str, form: str | None, convention: str | None) -> str:
    if form is not None and convention is not None:
        raise ConfigError(f"form {form!r} and convention {convention!r} both choose the form: give one of them")
    if form is not None and form not in ("ema", "heavy_ball"):
        raise ConfigError(unknown_name("form", form, ("ema", "heavy_ball")))
    return str(library_form(rule, convention, form=form)["form"])
