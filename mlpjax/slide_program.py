"""The lecture's own program: logistic regression of two features, with loops over epochs and examples.

It is kept as it is on the slide, line by line, in NumPy and Python scalars. Repaired, because it does not run as
printed:

* ``np.random.randn(1)`` draws an array of shape (1,), and ``z[i] = …`` cannot store an array in a slot for a number:
  the weights are scalars here (``err-code-shape``);
* ``m``, ``x``, ``y``, ``alpha``, ``sigmoid`` and the arrays ``z``, ``a``, ``dz`` are not defined on the slide, and the
  generator has no seed: they are arguments, or defined here (``err-code-undefined``);
* ``np.log(a[i])`` is −∞ once σ rounds to 0: the cost is computed from the score, log(1 + e^z) − y z, which is the
  same number (``err-code-undefined``).

The update comes after the loop over the examples, as printed there: it is batch gradient descent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mlpjax.checks import check_count, check_number
from mlpjax.errors import DataError
from mlpjax.separability import check_two_classes


class Program(NamedTuple):
    """What the program ends with: the parameters, and J of every epoch, before its update, ``(epochs,)``."""

    w1: float
    w2: float
    b: float
    J: np.ndarray


class Gradients(NamedTuple):
    """What one pass over the examples gives: J and its derivatives, each divided by m."""

    J: float
    dw1: float
    dw2: float
    db: float


EPOCHS = 1000
"""The number of epochs on the slide; α is not given there. Source: ``logreg-code-epochs``."""


def sigmoid(z: float) -> float:
    """σ(z) = 1/(1 + e^−z) for one number, by the form that does not overflow for its sign.

    >>> sigmoid(0.0), sigmoid(-1000.0)
    (0.5, 0.0)
    """
    if z >= 0:
        return float(1 / (1 + np.exp(-z)))
    return float(np.exp(z) / (1 + np.exp(z)))


def initialise(seed: int) -> tuple[float, float, float]:
    """w₁, w₂ ~ 0.01 · N(0, 1), b = 0. Source: ``logreg-code-init``, ``err-code-shape``.

    >>> w1, w2, b = initialise(0)
    >>> abs(w1) < 0.05, b
    (True, 0.0)
    """
    rng = np.random.default_rng(seed)
    w1 = rng.standard_normal() * 0.01
    w2 = rng.standard_normal() * 0.01
    return w1, w2, 0.0


def one_pass(x: np.ndarray, y: np.ndarray, w1: float, w2: float, b: float) -> Gradients:
    """Go over all examples ``x (m, 2)``, ``y (m,)``: accumulate cost and gradients, then divide by m.

    Source: ``logreg-code-loop``, ``logreg-code-average``, ``logreg-epoch``.

    >>> one_pass(np.array([[2.0, 0.0]]), np.array([1]), 0.0, 0.0, 0.0)[1:]
    (-1.0, 0.0, -0.5)
    """
    m = len(x)
    z, a, dz = np.zeros(m), np.zeros(m), np.zeros(m)
    J, dw1, dw2, db = 0.0, 0.0, 0.0, 0.0
    for i in range(m):
        z[i] = w1 * x[i, 0] + w2 * x[i, 1] + b
        a[i] = sigmoid(z[i])
        J += np.logaddexp(0, z[i]) - y[i] * z[i]
        dz[i] = a[i] - y[i]
        dw1 += x[i, 0] * dz[i]
        dw2 += x[i, 1] * dz[i]
        db += dz[i]
    J /= m
    dw1 /= m
    dw2 /= m
    db /= m
    return Gradients(float(J), float(dw1), float(dw2), float(db))


def run(x: Any, y: Any, *, alpha: float, epochs: int = EPOCHS, seed: int = 0) -> Program:
    """Run the program: start values, then per epoch one pass and one update, w₁ ← w₁ − α dw₁ and so on.

    Args:
        x: ``(m, 2)``.
        y: ``(m,)``, 0 and 1.
        alpha: the learning rate, which the slide leaves open.
        epochs: how many passes over the data.
        seed: of the start values.

    Raises:
        DataError: for other shapes or labels, or values that are not finite.
        InputError: for a wrong ``alpha`` or ``epochs``.

    Source: ``logreg-code-update``, ``err-code-undefined``.

    >>> from mlpjax.toys import gate
    >>> result = run(*gate("and_gate"), alpha=1.0, epochs=100)
    >>> bool(result.J[-1] < result.J[0]), result.b < 0
    (True, True)
    """
    x, y = check_two_classes(x, y)
    if x.shape[1] != 2:
        raise DataError(f"x has shape {x.shape}: expected (m, 2), the slide's program has w1 and w2")
    check_number("alpha", alpha, positive=True)
    check_count("epochs", epochs)
    w1, w2, b = initialise(seed)
    history = np.zeros(epochs)
    for epoch in range(epochs):
        history[epoch], dw1, dw2, db = one_pass(x, y, w1, w2, b)
        w1 = w1 - alpha * dw1
        w2 = w2 - alpha * dw2
        b = b - alpha * db
    return Program(w1, w2, b, history)
