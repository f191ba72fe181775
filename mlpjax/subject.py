"""What is audited: a function, its hand-derived gradient and the point, checked and brought to one precision.

Here a caller's mistakes get their message: an argument that has no gradient, a gradient with another tree or shape,
a value that is not finite.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.errors import InputError, listed, unknown_name

RETURNS = ("grad", "value_and_grad", "vjp")


class Subject(NamedTuple):
    """A function, its gradient function and their arguments; ``paths`` and ``shapes`` name the leaves of x."""

    f: Callable[..., Any]
    grad_f: Callable[..., Any]
    args: tuple[Any, ...]
    argnums: int | tuple[int, ...]
    returns: str
    has_aux: bool
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def ends(self) -> np.ndarray:
        """Where each leaf ends in the flat vector."""
        return np.cumsum([math.prod(shape) for shape in self.shapes])

    def split(self, flat: Any) -> list[Any]:
        """Cut the last axis of a flat array ``(…, N)`` into the leaves, ``(…, *shape)``."""
        starts = [0, *self.ends[:-1]]
        parts = [flat[..., start:end] for start, end in zip(starts, self.ends, strict=True)]
        return [part.reshape((*flat.shape[:-1], *shape)) for part, shape in zip(parts, self.shapes, strict=True)]


class Hand(NamedTuple):
    """What the gradient function gave: gradients ``(K, N)`` in float64, the leaves' own dtypes, the value, aux."""

    grads: np.ndarray
    dtypes: tuple[np.dtype, ...]
    value: Any
    aux: Any


def prepare(
    f: Callable[..., Any],
    grad_f: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: int | Sequence[int],
    returns: str,
    has_aux: bool,
) -> Subject:
    """Check what does not need f: that there is something to differentiate by, and that it is finite and real."""
    for name, given in (("f", f), ("grad_f", grad_f)):
        if not callable(given):
            raise InputError(f"{name} is a {type(given).__name__}: expected a function")
    if returns not in RETURNS:
        raise InputError(unknown_name("returns", returns, RETURNS))
    if returns == "vjp" and has_aux:
        raise InputError("has_aux goes with returns='grad' and 'value_and_grad': give f and its vjp without the aux")
    single = hasattr(argnums, "__index__")
    chosen: tuple[Any, ...] = (argnums,) if single else tuple(argnums) if isinstance(argnums, tuple | list) else ()
    if not chosen or any(not hasattr(i, "__index__") or not -len(args) <= i < len(args) for i in chosen):
        raise InputError(f"argnums is {argnums!r}: expected positions among the {len(args)} arguments given")
    chosen = tuple(int(i) % len(args) for i in chosen)
    if len(set(chosen)) < len(chosen):
        raise InputError(f"argnums is {argnums!r}: an argument stands there twice")
    names = _names(f, len(args))
    paths, shapes = [], []
    for i in chosen:
        for path, leaf in jax.tree_util.tree_leaves_with_path(args[i]):
            name = f"{names[i]}{jax.tree_util.keystr(path)}"
            paths.append(name)
            shapes.append(_check_leaf(name, leaf))
    if not any(math.prod(shape) for shape in shapes):
        raise InputError(f"argument {names[chosen[0]]} has no elements: there is nothing to differentiate by")
    return Subject(f, grad_f, args, chosen[0] if single else chosen, returns, has_aux, tuple(paths), tuple(shapes))


def _names(f: Callable[..., Any], count: int) -> list[str]:
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [named[i] if i < len(named) else f"args[{i}]" for i in range(count)]


def _check_leaf(name: str, leaf: Any) -> tuple[int, ...]:
    if not hasattr(leaf, "dtype") and not isinstance(leaf, bool | int | float | complex):
        raise InputError(
            f"{name} is of type {type(leaf).__name__}, which JAX does not know as a pytree: expected arrays, or a "
            "container of them; a dataclass becomes one by jax.tree_util.register_dataclass"
        )
    dtype = np.asarray(leaf).dtype if not hasattr(leaf, "dtype") else leaf.dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"{name} is of dtype {dtype}: a gradient is with respect to real floating-point numbers; make it one, or "
            "leave its argument out of argnums"
        )
    if isinstance(leaf, jax.core.Tracer):
        raise InputError(f"{name} has no value, under jax.jit or another transformation: call check_gradients outside")
    values = np.asarray(leaf, np.float64)
    if not np.isfinite(values).all():
        index = np.argwhere(~np.isfinite(values))[0].tolist()
        raise InputError(f"{name}{index} is {values[tuple(index)]}: expected finite numbers to take the gradient at")
    return values.shape


def cast(subject: Subject, dtype: Any, device: jax.Device) -> tuple[Any, ...]:
    """The arguments with every floating-point array in one dtype, on one device; other values as they are."""
    selected = subject.argnums if isinstance(subject.argnums, tuple) else (subject.argnums,)

    def convert(leaf: Any, always: bool) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.device_put(leaf, device)
        if not hasattr(leaf, "dtype") and not always:
            return leaf
        if always or jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(np.asarray(leaf, np.float64), dtype)
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            return jnp.asarray(np.asarray(leaf), np.result_type(dtype, np.complex64))
        # integers too in the width that JAX has at the moment
        return jnp.asarray(np.asarray(leaf)) if isinstance(leaf, jax.Array | np.ndarray) else leaf

    return tuple(
        jax.tree.map(lambda leaf, i=i: convert(leaf, i in selected), arg) for i, arg in enumerate(subject.args)
    )


def wrt(subject: Subject, args: tuple[Any, ...]) -> Any:
    """What the gradient is taken with respect to: one argument, or the tuple of several."""
    if isinstance(subject.argnums, tuple):
        return tuple(args[i] for i in subject.argnums)
    return args[subject.argnums]


def flat(subject: Subject, args: tuple[Any, ...]) -> np.ndarray:
    """The vector x of all leaves."""
    return np.concatenate([np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(wrt(subject, args))])


def at(subject: Subject, args: tuple[Any, ...], leaves: list[Any]) -> list[Any]:
    """The arguments with other leaves in those that the gradient is taken of."""
    replaced = structure(wrt(subject, args)).unflatten(leaves)
    chosen = {subject.argnums: replaced}
    if isinstance(subject.argnums, tuple):
        chosen = dict(zip(subject.argnums, replaced, strict=True))
    return [chosen.get(i, arg) for i, arg in enumerate(args)]


def structure(tree: Any) -> Any:
    """The tree's structure, which JAX's own annotation hides from a type checker."""
    return jax.tree.structure(tree)


def value(subject: Subject, args: tuple[Any, ...]) -> tuple[Any, Any]:
    """``(out, aux)`` of f; raises `InputError` unless out is a finite real scalar, or, for a vjp, a tree of such."""
    out = subject.f(*args)
    out, aux = out if subject.has_aux else (out, None)
    scalar_wanted = subject.returns != "vjp"
    if scalar_wanted and structure(out) != structure(0):
        hint = "; has_aux=True, if it returns (value, aux)" if isinstance(out, tuple) and len(out) == 2 else ""
        raise InputError(f"f returns a {type(out).__name__}: a gradient is of a scalar; use returns='vjp'{hint}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(out):
        name = f"f(…){jax.tree_util.keystr(path)}"
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise InputError(f"{name} is of dtype {jnp.result_type(leaf)}: expected real floating-point numbers")
        if scalar_wanted and np.shape(leaf):
            raise InputError(f"{name} has shape {np.shape(leaf)}: a gradient is of a scalar; use returns='vjp'")
        values = np.asarray(leaf, np.float64)
        if not np.isfinite(values).all():
            index = np.argwhere(~np.isfinite(values))[0].tolist()
            raise InputError(
                f"{name}{index or ''} is {values[tuple(index)]}: f has to be finite where its gradient is checked"
            )
    return out, aux


def cotangents(subject: Subject, out: Any, count: int, seed: int) -> list[Any]:
    """Random cotangents of f's value, in float64: ``count`` trees like ``out``; for a gradient the 1 alone."""
    leaves, tree = jax.tree.leaves(out), structure(out)
    if subject.returns != "vjp":
        return [tree.unflatten([np.float64(1.0)])]
    rng = np.random.default_rng(seed)
    return [tree.unflatten([rng.normal(size=np.shape(leaf)) for leaf in leaves]) for _ in range(count)]


def function(subject: Subject, args: tuple[Any, ...], cots: list[Any]) -> Callable[[list[Any]], jax.Array]:
    """``F(leaves) -> (K,)``: ⟨cotangent k, f⟩ as a function of all leaves."""

    def F(leaves: list[Any]) -> jax.Array:
        out = subject.f(*at(subject, args, leaves))
        out = out[0] if subject.has_aux else out
        return jnp.stack([sum(jax.tree.leaves(jax.tree.map(_inner, cot, out))) for cot in cots])

    return F


def _inner(cotangent: Any, out: jax.Array) -> jax.Array:
    return jnp.sum(jnp.asarray(cotangent).astype(jnp.real(out).dtype) * out)


def hand_gradient(subject: Subject, args: tuple[Any, ...], cots: list[Any]) -> Hand:
    """Call the gradient function, once per cotangent, and check the tree and the shapes of what it gives."""
    returned = subject.grad_f(*args)
    said, aux = None, None
    if subject.returns == "grad":
        if subject.has_aux:
            returned, aux = _pair(returned, "(grads, aux)")
        gradients = [returned]
    elif subject.returns == "value_and_grad":
        said, grads = _pair(returned, "((value, aux), grads)" if subject.has_aux else "(value, grads)")
        if subject.has_aux:
            said, aux = _pair(said, "((value, aux), grads)")
        gradients = [grads]
    else:
        said, pull = _pair(returned, "(value, vjp_fn)")
        if not callable(pull):
            raise InputError(f"grad_f returned a {type(pull).__name__} for vjp_fn: expected a function of a cotangent")
        gradients = [pull(jax.tree.map(lambda c, o: jnp.asarray(c, jnp.result_type(o)), cot, said)) for cot in cots]
    expected = wrt(subject, args)
    flats = []
    for grads in gradients:
        _check_tree(subject, grads, expected)
        flats.append(np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(grads)]))
    dtypes = tuple(np.dtype(jnp.result_type(leaf)) for leaf in jax.tree.leaves(gradients[0]))
    return Hand(np.stack(flats), dtypes, said, aux)


def _pair(returned: Any, form: str) -> tuple[Any, Any]:
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise InputError(f"grad_f returned a {type(returned).__name__}: expected {form}")
    return returned[0], returned[1]


def _check_tree(subject: Subject, grads: Any, expected: Any) -> None:
    for leaf in jax.tree.leaves(grads):
        dtype = getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
        if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
            raise InputError(f"grad_f returned values of dtype {dtype}: expected real numbers")
    same = structure(grads) == structure(expected)
    pairs = list(zip(jax.tree.leaves(grads), subject.shapes, subject.paths, strict=True)) if same else []
    wrong = [path for leaf, shape, path in pairs if np.shape(leaf) != shape]
    if same and not wrong:
        return
    what = f"has another shape at {listed(wrong, 5)}" if same else "has another tree than what it is the gradient of"
    raise InputError(f"the gradient {what}: got {_tree_text(grads)}, expected {_tree_text(expected)}")


def _tree_text(tree: Any) -> str:
    """A tree with shapes for leaves, in the notation of its containers."""
    text = str(jax.tree.map(lambda leaf: _Shape(np.shape(leaf)), tree))
    return text if len(text) <= 2000 else f"{text[:2000]} …"


class _Shape:
    """A leaf that is written as its shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __repr__(self) -> str:
        return f"f{list(self.shape)}"
