"""What training and every augmentation share: how one is called, checked, and made of others.

An augmentation is ``augment(key, batch) -> batch``, with a result of the same shapes and dtypes. It runs inside the
compiled step: it is traced once, so that randomness comes from ``key`` only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.checks import check_is_batch
from mlpjax.config import Config
from mlpjax.errors import ConfigError, InputError
from mlpjax.parameters import Batch, Params
from mlpjax.targets import as_array, target_matrix

Augment = Callable[[jax.Array, Batch], Batch]
"""``augment(key, batch)`` makes another batch, with the same labels or with labels made for it."""

AUGMENT_STREAM = 2**31 - 1
"""A step's key folded with this is its augmentation's; layer l draws from its key folded with l."""

T = TypeVar("T")


def chain(*augments: Augment) -> Augment:
    """Return the augmentation that applies several, one after another; the k-th draws from ``fold_in(key, k)``.

    Raises:
        InputError: if one is not callable.

    >>> both = chain(mlpjax.ImageAugment(shape=(2, 2), flip=1.0), mlpjax.VectorAugment(jitter=0.0))
    >>> both(jax.random.key(0), Batch(jnp.array([[1.0, 2.0, 3.0, 4.0]]), jnp.array([0]))).x
    Array([[2., 1., 4., 3.]], dtype=float32)
    """
    return jax.tree_util.Partial(_in_turn, tuple(as_pytree(augment) for augment in augments))


def as_pytree(augment: Augment) -> Augment:
    """Return an augmentation that `jax.jit` takes as an argument: one that is no pytree becomes static.

    Raises:
        InputError: if it is not callable, or neither a pytree nor hashable.

    >>> as_pytree(0.1)
    Traceback (most recent call last):
        ...
    mlpjax.errors.InputError: augment is 0.1: expected a function (key, batch) -> batch, such as mlpjax.ImageAugment...
    """
    if not callable(augment) or isinstance(augment, type):
        raise InputError(
            f"augment is {augment!r}: expected a function (key, batch) -> batch, such as "
            "mlpjax.ImageAugment(shape=(28, 28), shift=2)"
        )
    if not jax.tree_util.all_leaves([augment]):
        return augment
    try:
        hash(augment)
    except TypeError:
        raise InputError(
            f"augment is of type {type(augment).__name__}, neither a pytree nor hashable: give a function, or register "
            "the type with jax.tree_util.register_dataclass"
        ) from None
    return jax.tree_util.Partial(augment)


def augmented(config: Config, params: Params, augment: Augment, batch: Batch, key: jax.Array) -> Batch:
    """Return the batch that ``augment`` makes in the step whose key is ``key``.

    It is given ``x (m, n_0)`` and the head's targets ``y (m, n_L)`` in the parameters' dtype. Labels may become soft:
    every head's loss takes those, and accuracy counts them as the likelier label.

    Raises:
        InputError: if it returns anything but a batch of the shapes and dtypes that it was given.

    >>> config, batch = mlpjax.Config(sizes=(1, 3)), Batch(jnp.zeros((1, 1)), jnp.array([2]))
    >>> params, _ = mlpjax.init(config, jax.random.key(0))
    >>> augmented(config, params, lambda key, batch: batch, batch, jax.random.key(1)).y
    Array([[0., 0., 1.]], dtype=float32)
    """
    check_is_batch(batch)
    dtype = params[0].W.dtype
    y = target_matrix(config.head, batch.y, config.sizes[-1], dtype, batch.weight)
    before = Batch(as_array(batch.x, dtype).astype(dtype), y, batch.weight)
    after = augment(jax.random.fold_in(key, AUGMENT_STREAM), before)
    if not isinstance(after, Batch):
        raise InputError(f"augment returned a {type(after).__name__}: expected mlpjax.Batch(x, y, weight)")
    for name, old, new in zip(Batch._fields, before, after, strict=True):
        if _form(old) != _form(new):
            raise InputError(f"augment returned {name} of {_form(new)}: expected {_form(old)}, as it was given")
    return after


def pytree(*static: str) -> Callable[[type[T]], type[T]]:
    """Register a frozen dataclass as a pytree: the fields named are static, the others leaves, ``None`` when absent.

    jax goes past ``__init__``: values are checked once, when a person gives them, and jax puts placeholders there.
    """

    def register(kind: type[T]) -> type[T]:
        names = [field.name for field in dataclasses.fields(kind) if field.name not in static]  # type: ignore[arg-type]

        def flatten(self: T) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
            leaves = [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in names]
            return leaves, tuple(getattr(self, name) for name in static)

        def unflatten(fixed: tuple[Any, ...], leaves: Any) -> T:
            self = object.__new__(kind)
            for name, value in zip((*static, *names), (*fixed, *leaves), strict=True):
                object.__setattr__(self, name, value)
            return self

        jax.tree_util.register_pytree_with_keys(kind, flatten, unflatten)
        return kind

    return register


def strength(name: str, value: Any, within: Callable[[Any], Any], expected: str) -> Any:
    """Check a strength, a number or an array of them; scalars become Python floats, traced values pass.

    Raises:
        ConfigError: if it is not finite, or not ``within``.

    >>> strength("scale", 1.5, lambda s: (s >= 0) & (s < 1), "a number in [0, 1)")
    Traceback (most recent call last):
        ...
    mlpjax.errors.ConfigError: scale is 1.5: expected a number in [0, 1)
    """
    if value is None:
        return None
    try:
        numbers = np.asarray(value)
        with np.errstate(over="ignore"):
            numbers = numbers.astype(np.float32) if numbers.dtype.kind in "fiuV" else np.array(np.nan)
    except jax.errors.TracerArrayConversionError:
        return value
    except (TypeError, ValueError, OverflowError):
        numbers = np.array(np.nan)
    if not bool(np.all(np.isfinite(numbers) & within(numbers))):
        raise ConfigError(f"{name} is {value!r}: expected {expected}")
    if isinstance(value, jax.Array):
        return value
    return float(value) if numbers.ndim == 0 else numbers


def check_one_strength(augment: Any) -> None:
    """Raise `InputError` for an augmentation with arrays of strengths, which is a population."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(augment):
        if jnp.ndim(leaf):
            name = jax.tree_util.keystr(path).lstrip(".")
            raise InputError(f"{name} is an array of strengths, a population: take its members with jax.vmap")


def example_keys(key: jax.Array, m: int) -> jax.Array:
    """One key per example, ``fold_in(key, i)``: what an example draws depends neither on m nor on the others.

    >>> bool(example_keys(jax.random.key(0), 5)[3] == jax.random.fold_in(jax.random.key(0), 3))
    True
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(m))


def add_noise(keys: jax.Array, x: jax.Array, std: Any) -> jax.Array:
    """x + std · N(0, 1), row i drawn from ``keys[i]``; ``std`` broadcasts over a row. Where it is 0, x to the bit.

    >>> add_noise(example_keys(jax.random.key(0), 1), jnp.array([[-0.0, 1.0]]), 0.0)
    Array([[-0.,  1.]], dtype=float32)
    """
    std = jnp.asarray(std, jnp.float32)
    std = std if std.ndim == 0 else std[None]
    white = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], jnp.float32))(keys)
    return jnp.where(std == 0, x, x + (std * white).astype(x.dtype))


def _in_turn(augments: tuple[Augment, ...], key: jax.Array, batch: Batch) -> Batch:
    for k, augment in enumerate(augments):
        batch = augment(jax.random.fold_in(key, k), batch)
    return batch


def _form(value: Any) -> str:
    if value is None:
        return "None"
    return f"shape {jnp.shape(value)} and dtype {jnp.result_type(value)}"
