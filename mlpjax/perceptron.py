"""The perceptron: a linear function and a threshold, its loss, and one step of the rule that trains it.

A McCulloch–Pitts unit (1943) computes and does not learn; the rule w ← w + α (y − ŷ) x is Rosenblatt's (1958), and
`mlpjax.perceptron_training` repeats it.
The threshold is `mlpjax.activations.binary_step`: T(0) = 1, so that a point on the boundary is of class 1.
With x̃ = (1, x) and w̃ = (b, w), score and rule need no bias of their own (formulation 1); the functions here keep
w and b apart (formulation 2), and give b the update that it has as w̃₀.

Source: lecture, section *Perceptron*.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mlpjax.activations import binary_step
from mlpjax.errors import InputError


class Perceptron(NamedTuple):
    """The parameters θ = {w, b}: ``w (n_x,)`` and ``b ()``, n_x + 1 numbers. Source: ``perceptron-params``.

    >>> Perceptron(jnp.zeros(2), jnp.zeros(())).w.size + 1
    3
    """

    w: Any
    b: Any


def mp_neuron(excitatory: Any, inhibitory: Any, threshold: float) -> jax.Array:
    """McCulloch & Pitts: 1 if Σ e ≥ θ and no inhibitory input is on, else 0; ``(…, p), (…, q) → (…)``.

    AND is θ = p, OR is θ = 1, and NOT has a constant excitatory 1, θ = 1 and its input inhibitory. There is
    nothing to learn. An axis of length 0 is a unit without such inputs.

    Raises:
        InputError: for inputs other than 0 and 1.

    Source: ``perceptron-mp-neuron``, ``err-perc-attribution``.

    >>> from mlpjax.toys import gate
    >>> x, _ = gate("and_gate")
    >>> mp_neuron(x, jnp.zeros((4, 0)), threshold=2)
    Array([0., 0., 0., 1.], dtype=float32)
    """
    for name, inputs in (("excitatory", excitatory), ("inhibitory", inhibitory)):
        values = np.asarray(inputs)
        if not np.isin(values, (0, 1)).all():
            raise InputError(f"{name} inputs have the values {np.unique(values)}: expected 0 and 1 only")
    total = jnp.sum(jnp.asarray(excitatory, jnp.result_type(float)), axis=-1)
    blocked = jnp.any(jnp.asarray(inhibitory) != 0, axis=-1)
    return jnp.where(blocked, 0, binary_step(total - threshold))


def augment(x: ArrayLike) -> jax.Array:
    """x̃ = (1, x); ``(…, n_x) → (…, n_x + 1)``, the constant first. Source: ``perceptron-f1-eq-f2``.

    >>> augment(jnp.array([[5.0, 7.0]]))
    Array([[1., 5., 7.]], dtype=float32)
    """
    x = jnp.asarray(x)
    return jnp.concatenate([jnp.ones_like(x[..., :1]), x], axis=-1)


def score(params: Perceptron, x: ArrayLike) -> jax.Array:
    """z = x·w + b; ``(…, n_x) → (…)``. Source: ``perceptron-model-f2``.

    >>> score(Perceptron(jnp.array([2.0, 1.0]), jnp.array(-3.0)), jnp.array([[1.0, 1.0]]))
    Array([0.], dtype=float32)
    """
    return jnp.asarray(x) @ jnp.asarray(params.w) + params.b


def perceptron_predict(params: Perceptron, x: ArrayLike) -> jax.Array:
    """Formulation 2, Ŷ = T(X w + b) ∈ {0, 1}; ``(…, n_x) → (…)``.

    Source: ``perceptron-problem``, ``perceptron-model-f2``.

    >>> from mlpjax.toys import gate
    >>> x, _ = gate("and_gate")
    >>> perceptron_predict(Perceptron(jnp.array([2.0, 1.0]), jnp.array(-3.0)), x)
    Array([0., 0., 0., 1.], dtype=float32)
    """
    return binary_step(score(params, x))


def predict_augmented(w_tilde: ArrayLike, x_tilde: ArrayLike) -> jax.Array:
    """Formulation 1, ŷ = T(x̃·w̃) with x̃₀ = 1 and w̃₀ = b; ``(n_x + 1,), (…, n_x + 1) → (…)``.

    Source: ``perceptron-model-f1``.

    >>> from mlpjax.toys import gate
    >>> x, _ = gate("and_gate")
    >>> predict_augmented(jnp.array([-3.0, 2.0, 1.0]), augment(x))
    Array([0., 0., 0., 1.], dtype=float32)
    """
    return binary_step(jnp.asarray(x_tilde) @ jnp.asarray(w_tilde))


def signed_distance(params: Perceptron, x: ArrayLike) -> jax.Array:
    """(x·w + b)/‖w‖: the distance to the boundary {x : x·w + b = 0}, positive on the side of class 1.

    ``(…, n_x) → (…)``. Raises `InputError` for w = 0, where no boundary is. Source: ``perceptron-boundary``.

    >>> signed_distance(Perceptron(jnp.array([3.0, 4.0]), jnp.array(5.0)), jnp.zeros((1, 2)))
    Array([1.], dtype=float32)
    """
    return score(params, x) / _length(params)


def nearest_on_boundary(params: Perceptron, x: ArrayLike) -> jax.Array:
    """The point of the boundary that is nearest to x, x − d w/‖w‖ with d the signed distance; ``(…, n_x)``.

    Raises `InputError` for w = 0. Source: ``perceptron-boundary``.

    >>> nearest_on_boundary(Perceptron(jnp.array([3.0, 4.0]), jnp.array(5.0)), jnp.zeros((1, 2)))
    Array([[-0.6, -0.8]], dtype=float32)
    """
    return jnp.asarray(x) - jnp.tensordot(signed_distance(params, x), params.w / _length(params), axes=0)


def perceptron_loss(params: Perceptron, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """L = −(y − ŷ)(x·w + b) = max(0, −t z) with t = 2y − 1; ``(…, n_x), (…) → (…)``.

    ŷ is a constant to autodiff by itself, as the threshold's derivative is 0. At z = 0 the gradient for y = 0 is x;
    written as relu(−t z) it would be 0, and from w = 0 nothing would ever move. L is 0 for every data set at w = 0,
    b = 0: the rule does not minimise it, it takes steps along it. Source: ``perceptron-loss``,
    ``perceptron-trivial-min``, ``err-perc-relu-form``, ``err-perc-loss-degenerate``, ``trap-step``.

    >>> perceptron_loss(Perceptron(jnp.array([2.0, 1.0]), jnp.array(-3.0)), jnp.array([4.0, 1.0]), 0)
    Array(6., dtype=float32)
    """
    z = score(params, x)
    return (binary_step(z) - jnp.asarray(y)) * z


def perceptron_gradient(params: Perceptron, x: ArrayLike, y: ArrayLike) -> Perceptron:
    """∂L/∂w = −(y − ŷ) x and ∂L/∂b = −(y − ŷ), for one example ``x (n_x,)``, ``y ()``.

    The product rule's other term, −∂(y − ŷ)/∂w · z, is 0. Source: ``perceptron-loss-grad-rule``.

    >>> perceptron_gradient(Perceptron(jnp.array([2.0, 1.0]), jnp.array(-3.0)), jnp.array([4.0, 1.0]), 0)
    Perceptron(w=Array([4., 1.], dtype=float32), b=Array(1., dtype=float32))
    """
    error = y - perceptron_predict(params, x)
    return Perceptron(-error * jnp.asarray(x), -error)


def perceptron_step(params: Perceptron, x: ArrayLike, y: ArrayLike, alpha: float | jax.Array) -> Perceptron:
    """w ← w + α (y − ŷ) x and b ← b + α (y − ŷ), for one example ``x (n_x,)``, ``y ()`` (Rosenblatt 1958).

    A right answer changes nothing. A 1 that was missed adds α x̃ and lifts that example's z by α‖x̃‖²; a 1 too many
    takes α x̃ away and lowers z by as much. It is a step of gradient descent on `perceptron_loss`.

    Source: ``perceptron-update``, ``perceptron-update-bias``, ``perceptron-case-0``, ``perceptron-case-plus``,
    ``perceptron-case-minus``, ``perceptron-gd-equivalence``, ``err-perc-bias``, ``err-perc-cases``.

    >>> start = Perceptron(jnp.zeros(2), jnp.zeros(()))
    >>> perceptron_step(start, jnp.array([4.0, 1.0]), 0, 0.5)
    Perceptron(w=Array([-2. , -0.5], dtype=float32), b=Array(-0.5, dtype=float32))
    """
    error = y - perceptron_predict(params, x)
    return Perceptron(params.w + alpha * error * jnp.asarray(x), params.b + alpha * error)


def _length(params: Perceptron) -> jax.Array:
    """‖w‖, of which 0 is refused where it is known, outside of ``jit``."""
    w = jnp.asarray(params.w)
    # relative to the largest: the squares of huge or tiny weights would be ∞ or 0
    largest = jnp.max(jnp.abs(w))
    length = largest * jnp.linalg.norm(w / jnp.where(largest == 0, 1, largest))
    if not isinstance(length, jax.core.Tracer) and length == 0:
        raise InputError("w is 0: expected a w that has a direction; T(b) is the same everywhere, there is no boundary")
    return length
