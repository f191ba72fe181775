"""Why activations are not linear: a network without them is one affine map, however deep.

`collapse` computes that map, `rank_bound` says what a narrow layer costs it, and `best_affine_accuracy` what no such
map can do on points of the plane.

Source: lecture, section *Activation functions*, slide *Why non-linear activation functions?*.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mlpjax.errors import DataError, InputError
from mlpjax.parameters import Layer, Params
from mlpjax.separability import check_two_classes

_SAME_ANGLE = 1e-9


def collapse(params: Params) -> Layer:
    """Fold L layers with identity activations into one: ``x W′ + b′`` is what all of them compute.

        W′ = W[1] W[2] … W[L]  (n_0, n_L)
        b′ = Σ_l b[l] W[l+1] … W[L]  (n_L,), so b[1] W[2] + b[2] for two layers

    Args:
        params: the layers, of affine parts only.

    Returns:
        A `Layer` of ``W′`` and ``b′``; ``b′`` is ``None`` where no layer has a bias.

    Raises:
        InputError: there is no layer, two of them do not fit together, or one has batch-norm or a slope, which are
            not affine maps of the parameters W and b alone.

    Source: ``act-why-nonlinear``.

    >>> two = (mlpjax.Layer(jnp.array([[2.0]]), jnp.array([1.0])), mlpjax.Layer(jnp.array([[3.0]]), jnp.array([5.0])))
    >>> collapse(two)[:2]  # 3 (2x + 1) + 5
    (Array([[6.]], dtype=float32), Array([8.], dtype=float32))
    """
    _check(params)
    W, b = params[0][:2]
    for layer in params[1:]:
        W = W @ layer.W
        b = None if b is None else b @ layer.W
        if layer.b is not None:
            b = layer.b if b is None else b + layer.b
    return Layer(W, b)


def rank_bound(params: Params) -> int:
    """rank(W′) ≤ min(n_0, n_1, …, n_L): a narrow hidden layer is the only trace that depth leaves on the map.

    Raises:
        InputError: as in `collapse`.

    Source: ``act-linear-rank``, ``err-linear-only``.

    >>> rank_bound((mlpjax.Layer(jnp.ones((4, 2))), mlpjax.Layer(jnp.ones((2, 3)))))
    2
    """
    _check(params)
    return min(min(layer.W.shape) for layer in params)


def best_affine_accuracy(x: np.ndarray, y: np.ndarray) -> float:
    """The largest share of points that any straight line has on their right side: no linear network does better.

    Exact: between two directions in which two points change their order, every line of one direction splits the points
    in one of m + 1 ways, and all of those are counted. That is m² directions, so it is for hundreds of points.

    Args:
        x: points of the plane ``(m, 2)``.
        y: their classes ``(m,)``, 0 or 1.

    Raises:
        DataError: for other shapes or classes, or a point that is not finite.

    Source: ``act-linear-decision``.

    >>> from mlpjax.toys import gate
    >>> [best_affine_accuracy(*gate(name)) for name in ("and_gate", "or_gate", "xor_gate")]
    [1.0, 1.0, 0.75]
    """
    x, y = check_two_classes(x, y)
    if x.shape[1] != 2:
        raise DataError(f"x has shape {x.shape}: expected (m, 2), points of the plane")
    first, second = np.triu_indices(len(x), 1)
    between = x[second] - x[first]
    # the directions in which two points are level; a half turn is enough, as both sides are tried
    critical = (np.arctan2(between[:, 1], between[:, 0]) + np.pi / 2) % np.pi
    edges = np.sort(np.concatenate([[0.0, np.pi], critical[between.any(axis=1)]]))
    middles = (edges[1:] + edges[:-1])[np.diff(edges) > _SAME_ANGLE] / 2
    return max(_best_cut(x @ np.array([np.cos(angle), np.sin(angle)]), y) for angle in middles)


def _best_cut(along: np.ndarray, y: np.ndarray) -> float:
    """The best accuracy of a threshold on one coordinate, in either sense."""
    order = np.argsort(along)
    along, y = along[order], y[order]
    right = np.concatenate([[0], np.cumsum(1 - y)]) + np.concatenate([np.cumsum(y[::-1])[::-1], [0]])
    # points that coincide cannot be cut apart
    possible = np.concatenate([[True], along[1:] > along[:-1], [True]])
    share = right[possible] / len(y)
    return float(max(share.max(), 1 - share.min()))


def _check(params: Params) -> None:
    if not params:
        raise InputError("params has no layer: expected at least one")
    for l, layer in enumerate(params, 1):
        if jnp.ndim(layer.W) != 2:
            raise InputError(f"W of layer {l} has shape {jnp.shape(layer.W)}: expected (n_in, n_out)")
        if layer.gamma is not None or layer.slope is not None:
            raise InputError(f"layer {l} has batch-norm or a PReLU slope: expected W and b alone")
        if l > 1 and layer.W.shape[0] != params[l - 2].W.shape[1]:
            raise InputError(
                f"W of layer {l} has shape {layer.W.shape}: expected ({params[l - 2].W.shape[1]}, n), as layer {l - 1} "
                "has so many units"
            )
