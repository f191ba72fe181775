"""The operations of a computation graph by name: each a record of the function and its vector–Jacobian product.

A name is that of the JAX primitive that computes the same; the computation here is NumPy. At the special points:

* ``max`` and ``min`` give each of two equal values half of the gradient, and ``reduce_max`` shares it equally among
  all that are largest, as JAX does;
* ``abs`` gives 0 at 0, which is the package's convention for |w| (``jnp.abs`` gives 1, ``trap-abs0``), and ``pow``
  with the exponent 0.0 gives 0 at 0, x⁰ being constant (``jnp.power`` gives NaN);
* ``sign``, comparisons, rounding, integers and ``stop_gradient`` let no gradient pass.

`OPERATIONS` is open: an operation of your own entered under the name of a further primitive is known to
`mlpjax.graph_trace` from then on. Source: ``graph-node-summary``, ``graph-custom-node``.
"""

from __future__ import annotations

import numpy as np

from mlpjax.graph import Operation
from mlpjax.graph_axes import AXES
from mlpjax.graph_elementwise import ELEMENTWISE, FLAT, local

OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in (*ELEMENTWISE, *AXES, *FLAT)}
"""Every operation by its name, which is the primitive's. Source: ``graph-node-summary``."""

SQUARED_ERROR = local(
    "½(ŷ−y)²",
    lambda yhat, y: np.square(yhat - y) / 2,
    lambda z, yhat, y: yhat - y,
    lambda z, yhat, y: y - yhat,
)
"""The loss node l(ŷ, y) = ½(ŷ − y)², element by element: ∂l/∂ŷ = ŷ − y.

Source: ``graph-forward-3``, ``graph-backward-1``.
"""

CROSS_ENTROPY = local(
    "−log p(y)",
    lambda yhat, y: -(y * np.log(yhat) + (1 - y) * np.log(1 - yhat)),
    lambda z, yhat, y: (yhat - y) / (yhat * (1 - yhat)),
    lambda z, yhat, y: np.log(1 - yhat) - np.log(yhat),
)
"""The loss node l(ŷ, y) = −y log ŷ − (1 − y) log(1 − ŷ), for 0 < ŷ < 1: ∂l/∂ŷ = (ŷ − y)/(ŷ(1 − ŷ))."""

SOFTPLUS = local("softplus", lambda x: np.logaddexp(0, x), lambda z, x: -np.expm1(-z))
"""The lecture's invitation to write a node of one's own: log(1 + e^x), with ∂z/∂x = σ(x) = 1 − e^−z from the stored z.

Source: ``graph-custom-node``.
"""
