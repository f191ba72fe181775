"""Weight decay and soft-thresholding as parts of a chain: what optimisers do to the weights beside the loss.

They act on the weight matrices ``W`` only, as the penalties do; another ``mask`` is as in `optax.masked`. Their
``update`` needs the parameters.

Source: lecture, section *Regularisation*.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mlpjax import optim_rules as rules
from mlpjax.config import Config
from mlpjax.errors import ConfigError, InputError
from mlpjax.optim_lift import Alpha, check_alpha, check_range, lift
from mlpjax.shrinkage import unstable_decay


class ProximalState(NamedTuple):
    """The state of `proximal_l1`, by which `refuse_two_l1` knows it."""

    inner: Any


def weight_matrices(params: Any) -> Any:
    """A mask of ``params``: true for the leaves that are called ``W``, in a `mlpjax.Layer` or a dict.

    Raises:
        ConfigError: if none is.

    >>> weight_matrices((mlpjax.Layer(W=jnp.ones((2, 1)), b=jnp.ones(1)),))
    (Layer(W=True, b=False, gamma=None, beta=None, slope=None),)
    """

    def is_weight(path: Any, _: Any) -> bool:
        last = path[-1] if path else None
        return getattr(last, "name", getattr(last, "key", None)) == "W"

    mask = jax.tree.map_with_path(is_weight, params)
    leaves = jax.tree.leaves(mask)
    if leaves and not any(leaves):
        raise ConfigError("no parameter is called W, which is what decays by default: give a mask, as for optax.masked")
    return mask


def coupled_decay(l2: float | jax.Array, *, mask: Any = None) -> optax.GradientTransformation:
    """dW ← dW + l2 W, first in a chain: the gradient of the penalty (l2/2)ΣW², as ``Config(l2=…)`` adds it to J.

    The rule that follows takes it for gradient: Adam divides it by the size of the gradients, see `decoupled_decay`.

    Raises:
        ConfigError: if l2 is not a finite number ≥ 0.

    Source: ``reg-weight-decay``, ``reg-nn-step``, ``err-l2-adam``.

    >>> rule = coupled_decay(0.5)
    >>> rule.update({"W": jnp.ones(1)}, rule.init({"W": jnp.ones(1)}), {"W": jnp.full(1, 4.0)})[0]
    {'W': Array([3.], dtype=float32)}
    """
    check_range("l2", l2, 0, math.inf)
    return _on_weights(lambda step, dtheta: rules.coupled_decay(dtheta, step.theta, l2), None, mask)


def decoupled_decay(
    alpha: Alpha, l2: float | jax.Array, *, mask: Any = None, warn: bool = True
) -> optax.GradientTransformation:
    """W ← W − α l2 W, after the rule in a chain and beside it (AdamW with Adam: Loshchilov & Hutter 2019).

    For plain gradient steps it is the same as the penalty (l2/2)ΣW². torch, keras and optax decay so in their AdamW.
    With clipping, only the gradient's step is clipped.

    Warns:
        UserWarning: α l2 ≥ 2, so that W never settles, unless ``warn`` is false. A schedule is looked at after
            0, 1, 2, 4, 8, … updates.

    Raises:
        ConfigError: if α or l2 is not a finite number ≥ 0.

    Source: ``reg-weight-decay``, ``reg-decay-stability``, ``err-l2-adam``.

    >>> rule = decoupled_decay(0.5, 0.5)
    >>> rule.update({"W": jnp.zeros(1)}, rule.init({"W": jnp.ones(1)}), {"W": jnp.full(1, 4.0)})[0]
    {'W': Array([-1.], dtype=float32)}
    """
    check_alpha(alpha)
    check_range("l2", l2, 0, math.inf)
    if warn:
        warn_unstable(alpha, l2, stacklevel=3)
    return _on_weights(lambda step, delta: rules.decoupled_decay(delta, step.theta, step.alpha, l2), alpha, mask)


def proximal_l1(alpha: Alpha, l1: float | jax.Array, *, mask: Any = None) -> optax.GradientTransformation:
    """W ← S(W + ΔW, α l1), last in a chain: the soft threshold of what the rule arrives at, with exact zeros.

    After plain gradient steps it is ISTA, which minimises loss + l1 Σ|W|. Behind a rule that scales each coordinate the
    threshold stays α l1: as decoupled decay, it stands beside the rule. `mlpjax.fit` refuses it together with
    ``Config(l1=…)``, whose subgradient would count the penalty twice.

    Raises:
        ConfigError: if α or l1 is not a finite number ≥ 0.

    Source: ``reg-lasso-prox``, ``reg-lasso-sparse``, ``err-l1-sparse``.

    >>> rule = proximal_l1(0.5, 0.5)
    >>> W = {"W": jnp.array([4.0, 1.2])}
    >>> update, _ = rule.update({"W": jnp.array([-1.0, -1.0])}, rule.init(W), W)
    >>> optax.apply_updates(W, update)
    {'W': Array([2.75, 0.  ], dtype=float32)}
    """
    check_alpha(alpha)
    check_range("l1", l1, 0, math.inf)
    inner = _on_weights(lambda step, delta: rules.proximal_l1(delta, step.theta, step.alpha, l1), alpha, mask)

    def update(updates: Any, state: ProximalState, params: Any = None) -> tuple[Any, ProximalState]:
        updates, after = inner.update(updates, state.inner, params)
        return updates, ProximalState(after)

    return optax.GradientTransformation(lambda params: ProximalState(inner.init(params)), update)


def refuse_two_l1(config: Config, opt_state: Any) -> None:
    """Raise `ConfigError` where both the config and the optimiser have an L1 penalty."""

    def is_proximal(node: Any) -> bool:
        return isinstance(node, ProximalState)

    if config.l1 is not None and any(map(is_proximal, jax.tree.leaves(opt_state, is_leaf=is_proximal))):
        raise ConfigError(
            "the L1 penalty is given twice, as the config's l1 and as the optimiser's proximal_l1: choose one; "
            "only proximal_l1 makes weights exactly 0"
        )


def warn_unstable(alpha: Any, l2: Any, stacklevel: int) -> None:
    """Warn of a decay that never settles, where α and l2 are known."""
    try:
        if callable(alpha):
            counts = jnp.array([0, *(2**k for k in range(31))], jnp.int32)
            alpha = jnp.max(jax.vmap(alpha)(counts))
        why = unstable_decay(float(alpha), float(l2))
    except jax.errors.ConcretizationTypeError:
        return
    if why is not None:
        warnings.warn(why, UserWarning, stacklevel)


def _on_weights(rule: Callable[..., Any], alpha: Alpha | None, mask: Any) -> optax.GradientTransformation:
    inner = optax.masked(lift(rule, alpha), weight_matrices if mask is None else mask)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise InputError("decay and soft-thresholding need the parameters: call update(updates, opt_state, params)")
        return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)
