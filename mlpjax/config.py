"""What a network is: `Config`, one frozen record of names and numbers.

This module imports no jax, so that the command line can parse and explain itself at once;
`mlpjax.mlp` registers `Config` as a pytree.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from mlpjax.errors import ConfigError, unknown_name

ActivationName = Literal[
    "identity", "binary_step", "sigmoid", "tanh", "arctan", "relu", "leaky_relu", "prelu",
    "elu", "selu", "softplus", "gelu", "gelu_tanh", "silu",
]  # fmt: skip
HeadName = Literal["binary", "multilabel", "multiclass", "regression", "regression_relu"]
InitName = Literal[
    "auto", "zeros", "normal_001", "lecun_normal", "lecun_uniform", "glorot_normal", "glorot_uniform",
    "he_normal", "he_uniform", "orthogonal",
]  # fmt: skip
ParamDtype = Literal["float32", "float64"]
ComputeDtype = Literal["bfloat16", "float16", "float32"]
BatchNormConvention = Literal["torch", "keras"]

STATIC_FIELDS = (
    "sizes", "activation", "head", "init", "bias", "batch_norm", "batch_norm_convention", "param_dtype",
    "compute_dtype",
)  # fmt: skip
"""The fields that decide the program: another value compiles anew."""
NUMERIC_FIELDS = ("dropout", "l1", "l2")
"""The fields that only scale something: pytree leaves, so another value does not recompile."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The structure of a network and the numbers of its regularisation.

    A frozen keyword-only dataclass **and a pytree**: the fields of `STATIC_FIELDS` are static metadata,
    those of `NUMERIC_FIELDS` are leaves (``None`` when absent). ``jax.jit(mlpjax.backward)`` takes it as it
    is; changing a rate does not recompile; a population with different rates is one ``jax.vmap``.

    Args:
        sizes: ``(n_0, n_1, …, n_L)``, the width of the input, of each hidden layer and of the output.
        activation: one name, or one name per hidden layer (see `mlpjax.ACTIVATIONS`).
        head: the problem: ``binary``, ``multilabel``, ``multiclass``, ``regression``, ``regression_relu``.
        init: an initialiser of `mlpjax.INITIALIZERS`, or ``"auto"``: He before the ReLU family, LeCun before
            SELU, Glorot otherwise.
        bias: whether layers have a bias ``b``. A layer under batch-norm never has one: β takes its place.
        batch_norm: normalise the pre-activations of every hidden layer.
        batch_norm_convention: ``"torch"`` or ``"keras"``: that library's ε, momentum, variance and start of the
            running statistics, instead of the package's (see `mlpjax.layers.BATCH_NORM_FORMS`).
        dropout: the probability of *dropping* a unit: one rate for all hidden layers, or a tuple
            ``(input, hidden 1, …)``, where ``None`` means that the layer has no dropout.
        l1: strength of ``l1 Σ|W|``. With the lecture's λ₁ and m training examples, ``l1 = λ₁/(2m)``.
        l2: strength of ``(l2/2) Σ W²``. With the lecture's λ₂, ``l2 = λ₂/m``.
        param_dtype: ``"float32"`` or ``"float64"``; ``None`` is JAX's default float.
        compute_dtype: the dtype in which the matrix products are taken (``"bfloat16"`` on an accelerator);
            sums, losses and parameters stay in ``param_dtype``. ``None``: the same as ``param_dtype``.

    Raises:
        ConfigError: (a `ValueError`) naming what was got and what was expected. Traced values pass.

    Source: ledger ids ``deep-model``, ``mlp1-layer-count``, ``prob-dispatch``, ``reg-lambda``,
    ``reg-dropout-per-layer``,
    ``reg-dropout-default``.

    >>> Config(sizes=[64, 32, 10], dropout=0.2).activations
    ('relu',)
    >>> Config(sizes=(64, 10), activation="rleu")
    Traceback (most recent call last):
        ...
    mlpjax.errors.ConfigError: unknown activation 'rleu': did you mean 'relu'? known: identity, ...
    """

    sizes: tuple[int, ...] = (784, 256, 10)
    activation: str | tuple[str, ...] = "relu"
    head: str = "multiclass"
    init: str = "auto"
    bias: bool = True
    batch_norm: bool = False
    batch_norm_convention: str | None = None
    dropout: Any = None
    l1: Any = None
    l2: Any = None
    param_dtype: str | None = None
    compute_dtype: str | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "sizes", _sizes(self.sizes))
        if isinstance(self.activation, Iterable) and not isinstance(self.activation, str):
            set_(self, "activation", tuple(self.activation))
        if isinstance(self.dropout, list):
            set_(self, "dropout", tuple(self.dropout))
        self._check_names()
        self._check_head_width()
        self._check_numbers()
        # one type for every number: 0.1, 1 and a NumPy scalar compile the same program
        for name in NUMERIC_FIELDS:
            set_(self, name, _as_floats(getattr(self, name)))

    @property
    def depth(self) -> int:
        """L, the number of layers with weights; the network has L − 1 hidden layers."""
        return len(self.sizes) - 1

    @property
    def activations(self) -> tuple[str, ...]:
        """One activation name per hidden layer: (g of layer 1, …, g of layer L − 1)."""
        if isinstance(self.activation, str):
            return (self.activation,) * (self.depth - 1)
        return self.activation

    def dropout_rate(self, l: int) -> Any:
        """The dropout rate of layer ``l`` (0 is the input, L − 1 the last hidden layer), or ``None``."""
        if isinstance(self.dropout, tuple):
            return self.dropout[l]
        return self.dropout if l > 0 else None

    @property
    def has_dropout(self) -> bool:
        """Whether any layer drops units when training."""
        return any(self.dropout_rate(l) is not None for l in range(self.depth))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values; `from_dict` is the inverse."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Build a config from what `to_dict` gave; unknown keys are errors.

        >>> Config.from_dict({"sizes": [2, 1], "head": "binary"}).sizes
        (2, 1)
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(unknown_name("config field", name, known))
        try:
            return cls(**values)
        except RecursionError:
            raise ConfigError("a config field is a list of lists of lists …: expected names and numbers") from None

    def _check_names(self) -> None:
        names = list(self.activation) if isinstance(self.activation, tuple) else [self.activation]
        for name in names:
            _check_choice("activation", name, get_args(ActivationName))
        if not isinstance(self.activation, str) and len(names) != self.depth - 1:
            raise ConfigError(
                f"activation has {len(names)} names for {self.depth - 1} hidden layers: "
                "give one name for all, or one per hidden layer"
            )
        _check_choice("head", self.head, get_args(HeadName))
        _check_choice("init", self.init, get_args(InitName))
        if self.param_dtype is not None:
            _check_choice("param_dtype", self.param_dtype, get_args(ParamDtype))
        if self.compute_dtype is not None:
            _check_choice("compute_dtype", self.compute_dtype, get_args(ComputeDtype))
        for name in ("bias", "batch_norm"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}: expected True or False")
        self._check_batch_norm_convention()

    def _check_batch_norm_convention(self) -> None:
        name = self.batch_norm_convention
        if name is None:
            return
        if name in ("optax", "sklearn"):
            raise ConfigError(f"batch_norm_convention: {name} has no batch-norm: expected 'torch', 'keras' or None")
        _check_choice("batch_norm_convention", name, get_args(BatchNormConvention))
        if not self.batch_norm:
            raise ConfigError(f"batch_norm_convention is {name!r} without batch_norm=True: give both, or neither")

    def _check_head_width(self) -> None:
        n_L = self.sizes[-1]
        if self.head == "binary" and n_L != 1:
            raise ConfigError(
                f"head 'binary' has one output unit, got sizes[-1] = {n_L}: "
                "use sizes=(…, 1), or head='multiclass' or 'multilabel'"
            )
        if self.head == "multiclass" and n_L < 2:
            raise ConfigError("head 'multiclass' needs at least 2 output units, got sizes[-1] = 1: use head='binary'")

    def _check_numbers(self) -> None:
        rates = self.dropout if isinstance(self.dropout, tuple) else (self.dropout,)
        if isinstance(self.dropout, tuple) and len(rates) != self.depth:
            raise ConfigError(
                f"dropout has {len(rates)} rates, expected {self.depth}: "
                "(input, hidden 1, …, last hidden), None where nothing is dropped"
            )
        for rate in rates:
            _check_range("dropout rate", rate, 0.0, 1.0, "a probability of dropping in [0, 1)")
        for name in ("l1", "l2"):
            # float32, which the network may have, holds no more
            _check_range(name, getattr(self, name), 0.0, 3.4e38, "a finite number ≥ 0, below 3.4e38")


def _sizes(sizes: Any) -> tuple[int, ...]:
    """Check and normalise the widths."""
    expected = "expected at least two integers ≥ 1, (n_0, …, n_L), such as (784, 256, 10)"
    if not isinstance(sizes, Iterable):
        raise ConfigError(f"sizes is {sizes!r}: {expected}")
    sizes = tuple(sizes)
    widths = []
    for n in sizes:
        try:
            widths.append(0 if isinstance(n, bool) else operator.index(n))
        except TypeError:
            widths.append(0)
        if widths[-1] < 1:
            raise ConfigError(f"sizes has a width {n!r}: {expected}")
        if widths[-1] >= 2**31:
            raise ConfigError(f"sizes has a width beyond 2^31 - 1: {expected}")
    if len(widths) < 2:
        raise ConfigError(f"sizes is {sizes!r}: {expected}")
    return tuple(widths)


def _check_choice(what: str, name: object, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ConfigError(unknown_name(what, name, known))


def _check_range(what: str, value: Any, low: float, high: float, expected: str) -> None:
    """Check ``low <= value < high`` of a number or of each number of an array; let traced values pass."""
    if value is None:
        return
    wrong = ConfigError(f"{what} is {value!r}: expected {expected}")
    if isinstance(value, bool | str):
        raise wrong
    if isinstance(value, int | float):
        # an int may be larger than any float
        if not low <= value < min(high, 1e308):
            raise wrong
        return
    if not hasattr(value, "dtype"):
        raise wrong
    import numpy as np

    try:
        numbers = np.asarray(value)
    except TypeError:  # a tracer has a dtype but no value
        return
    if numbers.dtype.name == "bfloat16":
        numbers = numbers.astype(np.float32)
    if numbers.dtype.kind not in "fiu" or not bool(np.all((numbers >= low) & (numbers < high))):
        raise wrong


def _as_floats(value: Any) -> Any:
    """Turn the scalars among rates into Python floats; leave arrays and traced values."""
    if isinstance(value, tuple):
        return tuple(_as_floats(item) for item in value)
    # NumPy, which this module does not import, is known by its name
    if isinstance(value, int | float) or (type(value).__module__ == "numpy" and value.ndim == 0):
        return float(value)
    return value


def _plain(value: Any) -> Any:
    """Turn tuples and array scalars into what JSON knows."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if getattr(value, "ndim", 0) > 0:
        raise ConfigError(f"a config with an array of rates, {value!r}, is a population: take one member's numbers")
    return value.tolist() if hasattr(value, "tolist") else value
