"""Training a perceptron: Rosenblatt's rule, repeated until nothing is wrong, and Novikoff's bound on how often it acts.

Source: lecture, section *Perceptron*.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.checks import check_count, check_number
from mlpjax.errors import DataError
from mlpjax.perceptron import Perceptron, perceptron_predict, perceptron_step
from mlpjax.separability import Certificate, check_two_classes, margin_of, separate


class PerceptronFit(NamedTuple):
    """What `perceptron_fit` returns.

    ``params`` at the end; ``path``, the same after each of the E epochs, ``w (E, n_x)`` and ``b (E,)``;
    ``mistakes (E,)``, the updates in each epoch; ``converged``, whether the last epoch had none; ``alpha``.
    """

    params: Perceptron
    path: Perceptron
    mistakes: np.ndarray
    converged: bool
    alpha: float

    @property
    def epochs(self) -> int:
        """After how many epochs it stopped, the last one, without mistakes, included."""
        return len(self.mistakes)

    @property
    def total(self) -> int:
        """All mistakes, that is all updates."""
        return int(self.mistakes.sum())


def perceptron_fit(x: Any, y: Any, *, alpha: float = 1.0, max_epochs: int = 1000) -> PerceptronFit:
    """Train by Rosenblatt's rule from w = 0, b = 0, example after example in the order given.

    It stops after an epoch without a mistake, which comes if and only if the classes are separable (and
    ``max_epochs`` is large enough); otherwise the weights go round without end. α scales w and b and changes no
    prediction.

    Args:
        x: ``(m, n_x)``.
        y: ``(m,)``, classes 0 and 1.
        alpha: the learning rate α.
        max_epochs: when to give up.

    Raises:
        DataError: for data as in `mlpjax.separability.separate`, and features so large that the weights overflow.
        InputError: for an α that is not finite and positive, and a count below 1.

    Source: ``perceptron-train-loop``, ``perceptron-instability``, ``perceptron-alpha-scale``,
    ``err-perc-threshold0``, ``err-perc-instability``.

    >>> from mlpjax.toys import gate
    >>> fit = perceptron_fit(*gate("and_gate"))
    >>> fit.params.b, fit.params.w, fit.converged
    (Array(-3., dtype=float32), Array([2., 1.], dtype=float32), True)
    """
    x, y = check_two_classes(x, y)
    check_count("max_epochs", max_epochs)
    check_number("alpha", alpha, positive=True)
    dtype = jnp.result_type(float)
    epochs, path, mistakes = _train(jnp.asarray(x, dtype), jnp.asarray(y, dtype), jnp.asarray(alpha, dtype), max_epochs)
    count = int(epochs)
    path = jax.tree.map(lambda leaf: leaf[:count], path)
    params = jax.tree.map(lambda leaf: leaf[-1], path)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in params):
        raise DataError(f"the weights overflowed: x has values up to {np.abs(x).max():g}; scale its columns down")
    mistakes = np.asarray(mistakes)[:count]
    return PerceptronFit(params, path, mistakes, bool(mistakes[-1] == 0), float(alpha))


class Novikoff(NamedTuple):
    """Novikoff's argument in numbers, k being the mistakes made by the end of each of the E epochs.

    ``norm`` is ‖w̃‖/α, which grows at most as R√k; ``progress`` is w̃·u/α, which grows at least as γk; and as
    w̃·u ≤ ‖w̃‖, there can be no more than ``bound`` = (R/γ)² mistakes. ``radius`` R is max ‖x̃ᵢ‖, ``margin`` γ is
    min tᵢ x̃ᵢ·u.
    """

    k: np.ndarray
    norm: np.ndarray
    progress: np.ndarray
    radius: float
    margin: float

    @property
    def bound(self) -> float:
        """(R/γ)², the most mistakes there can be."""
        return (self.radius / self.margin) ** 2


def novikoff(fit: PerceptronFit, x: Any, y: Any, separator: Perceptron | None = None) -> Novikoff:
    """Follow Novikoff's bound (1962) along a training on separable data.

    Args:
        fit: from `perceptron_fit`.
        x: the same ``(m, n_x)``.
        y: the same ``(m,)``.
        separator: any w and b that separate; the larger their margin the smaller the bound. By default the one that
            `mlpjax.separability.separate` finds.

    Raises:
        DataError: nothing separates the data, or the separator given does not.

    Source: ``perceptron-novikoff``.

    >>> from mlpjax.toys import gate
    >>> x, y = gate("and_gate")
    >>> fit = perceptron_fit(x, y)
    >>> track = novikoff(fit, x, y, Perceptron(jnp.array([2.0, 2.0]), jnp.array(-3.0)))
    >>> fit.total, round(track.bound)  # R² = 3, γ² = 1/17
    (11, 51)
    """
    x, y = check_two_classes(x, y)
    if separator is None:
        found = separate(x, y)
        if isinstance(found, Certificate):
            raise DataError("no hyperplane separates the classes, so that the bound does not exist: see separate(x, y)")
        separator = Perceptron(found.w, found.b)
    margin = margin_of(separator.w, separator.b, x, y)
    if margin <= 0:
        raise DataError(f"the separator has a margin of {margin:g} on these data: expected one that separates them")
    u = np.append(np.float64(separator.b), np.asarray(separator.w, np.float64))
    w_tilde = np.column_stack([fit.path.b, fit.path.w]).astype(np.float64) / fit.alpha
    return Novikoff(
        k=np.cumsum(fit.mistakes),
        norm=np.linalg.norm(w_tilde, axis=1),
        progress=w_tilde @ u / np.linalg.norm(u),
        radius=float(np.sqrt(np.max(np.sum(x * x, axis=1)) + 1)),
        margin=margin,
    )


@functools.partial(jax.jit, static_argnames="max_epochs")
def _train(x: jax.Array, y: jax.Array, alpha: jax.Array, max_epochs: int) -> tuple[jax.Array, Perceptron, jax.Array]:
    """Run epochs until one has no mistake: how many there were, the parameters after each, and its mistakes."""

    def see(params: Perceptron, example: tuple[jax.Array, jax.Array]) -> tuple[Perceptron, jax.Array]:
        wrong = perceptron_predict(params, example[0]) != example[1]
        return perceptron_step(params, *example, alpha), wrong

    def epoch(carry: Any) -> Any:
        done, params, path, mistakes = carry
        params, wrong = jax.lax.scan(see, params, (x, y))
        path = jax.tree.map(lambda leaf, now: leaf.at[done].set(now), path, params)
        return done + 1, params, path, mistakes.at[done].set(jnp.sum(wrong, dtype=jnp.int32))

    def going_on(carry: Any) -> jax.Array:
        done, _, _, mistakes = carry
        return (done < max_epochs) & ((done == 0) | (mistakes[done - 1] > 0))

    start = Perceptron(jnp.zeros_like(x[0]), jnp.zeros_like(y[0]))
    path = jax.tree.map(lambda leaf: jnp.zeros((max_epochs, *leaf.shape), leaf.dtype), start)
    carry = (jnp.zeros((), jnp.int32), start, path, jnp.zeros(max_epochs, jnp.int32))
    done, _, path, mistakes = jax.lax.while_loop(going_on, epoch, carry)
    return done, path, mistakes
