"""What a network consists of: the records of its parameters, its state and its data, and how they start.

`Config` becomes a pytree here: importing this module registers it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.activations import PRELU_START
from mlpjax.config import NUMERIC_FIELDS, STATIC_FIELDS, Config
from mlpjax.errors import ConfigError
from mlpjax.initializers import INITIALIZERS
from mlpjax.layers import BatchNormState

RELU_FAMILY = ("relu", "leaky_relu", "prelu", "elu", "gelu", "gelu_tanh", "silu")
"""The activations before which ``init="auto"`` chooses He: ReLU, its variants and its smooth relatives."""


class Layer(NamedTuple):
    """The parameters of one layer; ``None`` where unused.

    ``W (n_{l−1}, n_l)``, ``b (n_l,)`` (never under batch-norm), ``gamma`` and ``beta (n_l,)`` of batch-norm,
    ``slope (n_l,)`` of PReLU. Source: ``mlp1-notation``, ``mlp1-param-shapes``, ``norm-bn-bias-redundant``.
    """

    W: jax.Array
    b: jax.Array | None = None
    gamma: jax.Array | None = None
    beta: jax.Array | None = None
    slope: jax.Array | None = None


class Batch(NamedTuple):
    """Examples ``x (m, n_0)``, labels ``y`` (see `mlpjax.targets.target_matrix`), and weights ``(m,)`` or ``None``.

    Source: ``train-dataset``.
    """

    x: Any
    y: Any
    weight: Any = None


class Aux(NamedTuple):
    """What `loss` returns beside J.

    ``state`` after the batch, the data part ``data_loss`` and the ``penalty`` part of J, ``weight_sum`` Σwᵢ, and
    the scores ``z (m, n_L)``.
    """

    state: State
    data_loss: jax.Array
    penalty: jax.Array
    weight_sum: jax.Array
    z: jax.Array


Params = tuple[Layer, ...]
State = tuple[BatchNormState, ...]


def _flatten_config(config: Config) -> tuple[list[tuple[jax.tree_util.GetAttrKey, Any]], tuple[Any, ...]]:
    leaves = [(jax.tree_util.GetAttrKey(name), getattr(config, name)) for name in NUMERIC_FIELDS]
    return leaves, tuple(getattr(config, name) for name in STATIC_FIELDS)


def _unflatten_config(static: tuple[Any, ...], numbers: Any) -> Config:
    # past __init__: a value is validated once, when a person gives it; jax puts placeholders here
    config = object.__new__(Config)
    for name, value in zip(STATIC_FIELDS + NUMERIC_FIELDS, (*static, *numbers), strict=True):
        object.__setattr__(config, name, value)
    return config


jax.tree_util.register_pytree_with_keys(Config, _flatten_config, _unflatten_config)


def init(config: Config, key: jax.Array) -> tuple[Params, State]:
    """Draw the start values: W by ``config.init``, b = 0, γ = 1, β = 0, PReLU slope 0.25.

    Args:
        config: the network.
        key: a key of `jax.random`; layer l draws from ``fold_in(key, l)``.

    Returns:
        ``(params, state)``: one `Layer` per layer, and one `BatchNormState` per hidden layer, or ``()`` without
        batch-norm.

    Source: ``mlp1-example-341``, ``init-random-rule``, ``init-bias-zero``, ``norm-bn-params``, ``err-prelu-dalpha``.

    >>> params, state = init(Config(sizes=(4, 3, 2)), jax.random.key(0))
    >>> [layer.W.shape for layer in params], state
    ([(4, 3), (3, 2)], ())
    """
    return _init(config, key)


def _draw(config: Config, key: jax.Array) -> tuple[Params, State]:
    dtype = param_dtype(config)
    params, state = [], []
    for l in range(1, config.depth + 1):
        n_in, n_out = config.sizes[l - 1], config.sizes[l]
        hidden = l < config.depth
        norm = config.batch_norm and hidden
        slope = hidden and config.activations[l - 1] == "prelu"
        W = INITIALIZERS[initializer_name(config, l)](jax.random.fold_in(key, l), (n_in, n_out), dtype)
        params.append(
            Layer(
                W=W,
                b=jnp.zeros(n_out, dtype) if config.bias and not norm else None,
                gamma=jnp.ones(n_out, dtype) if norm else None,
                beta=jnp.zeros(n_out, dtype) if norm else None,
                slope=jnp.full(n_out, PRELU_START, dtype) if slope else None,
            )
        )
        if norm:
            zero = jnp.zeros(n_out, dtype)
            state.append(BatchNormState(mean=zero, var=jnp.ones(n_out, dtype), count=jnp.zeros((), jnp.int32)))
    return tuple(params), tuple(state)


# one program: operation by operation, each shape of each layer is compiled on its own
_init = jax.jit(_draw)


def initializer_name(config: Config, l: int) -> str:
    """The initialiser of layer ``l`` (1 … L): the config's, or the one ``"auto"`` means there.

    ``"auto"`` goes by what the layer feeds: He before the ReLU family (the ReLU output head included), LeCun
    before SELU, Glorot otherwise.

    >>> config = Config(sizes=(4, 3, 2, 1), activation=("relu", "selu"), head="regression")
    >>> [initializer_name(config, l) for l in (1, 2, 3)]
    ['he_normal', 'lecun_normal', 'glorot_normal']
    """
    if config.init != "auto":
        return config.init
    output = "relu" if config.head == "regression_relu" else "identity"
    feeds = (*config.activations, output)[l - 1]
    if feeds in RELU_FAMILY:
        return "he_normal"
    return "lecun_normal" if feeds == "selu" else "glorot_normal"


def param_dtype(config: Config) -> jax.typing.DTypeLike:
    """The dtype of the parameters: the config's, or JAX's default float.

    Raises:
        ConfigError: for float64 while JAX has it switched off.

    >>> param_dtype(Config())
    dtype('float32')
    """
    if config.param_dtype is None:
        return jnp.result_type(float)
    dtype = jnp.dtype(config.param_dtype)
    if dtype == jnp.float64 and jnp.result_type(float) != dtype:
        raise ConfigError(
            "param_dtype is 'float64', which JAX has switched off: set JAX_ENABLE_X64=1 or use jax.enable_x64(True)"
        )
    return dtype
