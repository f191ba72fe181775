"""The vanishing gradient: the lecture's product with its bound, and what happens in networks of any depth.

`chain_gradients` is the slide, one unit per layer; `layer_signals` reads the sizes of activations and gradients off a
trace of a network, and `deep_signals` does so for a fresh deep one; `dying_relu` trains units that start dead.

Source: lecture, section *Activation functions*, slides *Vanishing gradient*, *Hyperbolic tangent* and *Variations of
ReLU*.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.checks import check_count, plain_activation
from mlpjax.config import Config
from mlpjax.errors import InputError
from mlpjax.glassbox import trace
from mlpjax.layers import affine_forward
from mlpjax.mlp import backward
from mlpjax.parameters import Batch, Layer, Params, State, init

_WIDTH = 32
_DYING_UNITS, _DYING_EXAMPLES, _DYING_RATE, _DYING_BIAS = 16, 64, 0.5, -10.0


class ChainGradients(NamedTuple):
    """A network of one unit per layer: ``z``, ``a`` and ∂L/∂b of the layers 1 … L, each ``(L,)``.

    ``factors`` are the braces of the slide: w[l+1] g′(z[l]), and g′(z[L]) for the last.
    """

    z: jax.Array
    a: jax.Array
    factors: jax.Array
    db: jax.Array


def chain_gradients(w: Any, b: Any, x: Any, da: Any = 1.0, activation: str = "sigmoid") -> ChainGradients:
    """∂L/∂b[l] = ∂L/∂a[L] g′(z[L]) · w[L] g′(z[L−1]) ⋯ w[l+1] g′(z[l]), with z[l] = a[l−1] w[l] + b[l], a[0] = x.

    As ∂z/∂b = 1, it is ∂L/∂z[l] too. For L = 4 and l = 1 it is the product of the slide. It needs neither transposes
    nor ⊙ since each layer has one unit; with more it is ``deep-back-dZ-recursion``.

    Args:
        w: the weights ``(L,)``; w[1] multiplies x.
        b: the biases ``(L,)``.
        x: the input, a number.
        da: ∂L/∂a[L].
        activation: g, a name of `mlpjax.ACTIVATIONS` without a learnt slope.

    Raises:
        InputError: for other shapes, or another activation.

    Source: ``act-vanish-chain``, ``err-vanish-scalar``.

    >>> chain_gradients([1.0, 4.0], [0.0, -2.0], 0.0).db  # σ′(0) = ¼: then w = 4 keeps it
    Array([0.25, 0.25], dtype=float32)
    """
    g = plain_activation(activation)
    w, b = _vector(w, "w"), _vector(b, "b")
    if w.shape != b.shape:
        raise InputError(f"w has {len(w)} layers and b {len(b)}: expected as many")
    a, zs = jnp.asarray(x, w.dtype), []
    for weight, bias in zip(w, b, strict=True):
        zs.append(a * weight + bias)
        a = g.f(zs[-1])
    z = jnp.stack(zs)
    factors = g.df(z) * jnp.append(w[1:], 1)
    db = da * jnp.cumprod(factors[::-1])[::-1]
    return ChainGradients(z, g.f(z), factors, db)


def chain_bound(w: Any, da: Any = 1.0, steepest: float = 0.25) -> jax.Array:
    """|∂L/∂b[1]| ≤ |∂L/∂a[L]| (max g′)^L Π_{l≥2} |w[l]|: the gradient must vanish only while |w| max g′ < 1.

    Args:
        w: the weights ``(L,)``.
        da: ∂L/∂a[L].
        steepest: max g′, ¼ for the sigmoid, 1 for tanh and ReLU.

    Source: ``act-vanish-bound``, ``err-vanish-cause``.

    >>> chain_bound([1.0, 2.0, 2.0])  # 4 (¼)³
    Array(0.0625, dtype=float32)
    """
    w = _vector(w, "w")
    return jnp.abs(da) * steepest ** len(w) * jnp.prod(jnp.abs(w[1:]))


class LayerSignals(NamedTuple):
    """What reaches each layer: mean and standard deviation of a[1 … L−1], and √Σ dZ², √Σ dW² of the layers 1 … L."""

    a_mean: np.ndarray
    a_std: np.ndarray
    dz_norm: np.ndarray
    dW_norm: np.ndarray


def layer_signals(config: Config, params: Params, state: State, batch: Batch) -> LayerSignals:
    """Measure activations and gradients of J layer by layer, in one pass over a batch that drops nothing.

    Source: ``err-tanh-mean``.

    >>> config = Config(sizes=(2, 3, 1), head="regression", activation="sigmoid", init="zeros")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> signals = layer_signals(config, params, state, Batch(np.ones((4, 2)), np.ones(4)))
    >>> signals.a_mean, signals.dz_norm  # σ(0); and W[2] = 0 passes nothing back
    (array([0.5]), array([0. , 0.5]))
    """
    seen = trace(config, params, state, batch, train=False)
    activations = [np.asarray(layer.a.value, np.float64) for layer in seen.hidden]
    return LayerSignals(
        np.array([a.mean() for a in activations]),
        np.array([a.std() for a in activations]),
        np.array([_norm(dz.value) for dz in (*(layer.dz for layer in seen.hidden), seen.output.dz)]),
        np.array([_norm(dW.value) for dW in (*(layer.dW for layer in seen.hidden), seen.output.dW)]),
    )


def deep_signals(
    activation: str, depth: int, *, init_name: str = "auto", scale: float = 1.0, seed: int = 0
) -> LayerSignals:
    """`layer_signals` of a fresh network of ``depth`` layers of 32 units, with one output, on 32 x, y ~ N(0, 1).

    Args:
        activation: of every hidden layer.
        depth: L, the number of layers with weights.
        init_name: an initialiser of `mlpjax.INITIALIZERS`, or ``"auto"``.
        scale: what the weights are multiplied by.
        seed: of weights and data.

    Raises:
        ConfigError: for a wrong name or size.

    Source: ``act-vanish-experiment``, ``act-vanish-relu``, ``act-tanh-vs-sigmoid``, ``err-vanish-cause``,
    ``err-vanish-relu``.

    >>> bool(deep_signals("sigmoid", 10).dz_norm[0] < 1e-4 * deep_signals("relu", 10).dz_norm[0])
    True
    """
    config = Config(sizes=(_WIDTH,) * depth + (1,), activation=activation, head="regression", init=init_name)
    params, state = init(config, jax.random.key(seed))
    params = tuple(layer._replace(W=scale * layer.W) for layer in params)
    rng = np.random.default_rng(seed)
    return layer_signals(config, params, state, Batch(rng.normal(size=(_WIDTH, _WIDTH)), rng.normal(size=_WIDTH)))


class DyingRun(NamedTuple):
    """Before each step, and after the last: ``loss``, ``dead`` and ``dW_norm``, each ``(steps + 1,)``.

    ``dead`` is the share of hidden units with z < 0 on all examples, ``dW_norm`` is √Σ dW[1]².
    """

    loss: Any
    dead: Any
    dW_norm: Any


def dying_relu(activation: str = "relu", *, steps: int = 6000, seed: int = 0) -> DyingRun:
    """Train 16 hidden units that start with b = −10, so low that they are off on all data: z < 0.

    A ReLU unit that is off on every example has gradient 0 and stays as it is for ever; the slope of leaky ReLU can
    bring it back: 2 of the 16 after 6000 steps, which is enough to fit. The task is y = |x| for 64 x ~ N(0, 1), by
    gradient descent on all of them with α = ½. The output layer stays as it is, a sum over √16, as it would otherwise
    fit what a constant can and leave nothing to come back for.

    Args:
        activation: of the hidden layer, without a learnt slope.
        steps: of gradient descent.
        seed: of weights and data.

    Raises:
        InputError: for an activation that is not usable.
        ConfigError: for a count of steps that is not positive.

    Source: ``act-leaky-dying``.

    >>> run = dying_relu("relu", steps=2)
    >>> run.dead, run.dW_norm
    (array([1., 1., 1.], dtype=float32), array([0., 0., 0.], dtype=float32))
    """
    check_count("steps", steps)
    plain_activation(activation)
    x = np.random.default_rng(seed).normal(size=(_DYING_EXAMPLES, 1))
    config = Config(sizes=(1, _DYING_UNITS, 1), activation=activation, head="regression")
    (hidden, output), _ = init(config, jax.random.key(seed))
    hidden = hidden._replace(b=jnp.full(_DYING_UNITS, _DYING_BIAS, hidden.W.dtype))
    output = output._replace(W=jnp.full_like(output.W, _DYING_UNITS**-0.5))
    batch = Batch(jnp.asarray(x, hidden.W.dtype), jnp.asarray(np.abs(x), hidden.W.dtype))

    def step(hidden: Layer, _: None) -> tuple[Layer, DyingRun]:
        (J, _aux), (grad, _output) = backward(config, (hidden, output), (), batch)
        z, _cache = affine_forward(batch.x, hidden.W, hidden.b)
        seen = DyingRun(J, jnp.mean(jnp.all(z < 0, axis=0), dtype=z.dtype), jnp.linalg.norm(grad.W))
        return jax.tree.map(lambda p, dp: p - _DYING_RATE * dp, hidden, grad), seen

    _end, run = jax.jit(lambda start: jax.lax.scan(step, start, None, length=steps + 1))(hidden)
    return DyingRun(*(np.asarray(column) for column in run))


def _vector(value: Any, name: str) -> jax.Array:
    value = jnp.asarray(value, float)
    if value.ndim != 1 or len(value) == 0:
        raise InputError(f"{name} has shape {value.shape}: expected (L,), one number per layer")
    return value


def _norm(value: jax.Array) -> float:
    return float(np.linalg.norm(np.asarray(value, np.float64)))
