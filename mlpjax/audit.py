"""The gradient audit: is a hand-derived gradient the derivative of its function, element by element?

`check_gradients` asks reverse mode, forward mode, central differences and the complex step (`mlpjax.oracles`), in
float64 whatever the caller's precision is, and returns a `mlpjax.reports.GradientReport`. How it judges:

* **Autodiff.** Hand and reverse mode may differ by 1e-11 of the leaf's scale (its largest element), plus what
  rounding explains: both are also run with float32 arguments, and what changes there, times 2⁻²⁹, is their rounding in
  float64. Nothing is multiplied by the size of a leaf, and a leaf counts by its own scale unless it is rounding alone.
* **Differences** carry an error of their own, found from a sweep of step sizes, and that is their tolerance.
* **Kinks.** A step across a kink excuses the difference quotient, never the gradient: it must be autodiff's value,
  or lie between the one-sided derivatives. Where several kinks meet, as with W = 0 before ReLU, what autodiff
  calls the derivative need not lie between them: there hand and both modes must agree.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.errors import InputError, listed, unknown_name
from mlpjax.judging import choose_probes, judge
from mlpjax.judging_low import judge_low
from mlpjax.oracles import Target, footprint, reverse
from mlpjax.reports import Evidence, GradientReport, LeafReport
from mlpjax.subject import Hand, Subject, cast, cotangents, flat, function, hand_gradient, prepare, value
from mlpjax.values import not_deterministic, value_problems
from mlpjax.versions import versions

RTOL = {"float64": 1e-11, "float32": 1e-4, "float16": 5e-2, "bfloat16": 5e-2}
"""What a gradient may differ by, over its leaf's scale, beside rounding: by the precision it was computed in."""
KINKS = ("between", "autodiff")
_EPS = 2.0**-52
_SHIFT = 2.0**-29
"""The precision of float64 over that of float32."""
_FLOAT32_LIKE = 1e-5
_ROUNDING = 32
"""By how much rounding measured once may fall short."""


def check_gradients(
    f: Callable[..., Any],
    grad_f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    returns: str = "grad",
    has_aux: bool = False,
    dtype: str = "float64",
    device: jax.Device | None = None,
    rtol: float | None = None,
    seed: int = 0,
    n_cotangents: int = 3,
    max_elements: int = 4096,
    kinks: str = "between",
    jit: bool = True,
) -> GradientReport:
    """Compare a hand-derived gradient of any function of pytrees with every oracle there is.

    Args:
        f: the function, in JAX: ``f(*args)`` is a scalar, or any tree of arrays for ``returns="vjp"``.
        grad_f: its hand-derived gradient, ``grad_f(*args)``; it need not be JAX.
        args: the point. Every floating-point array among them is taken in float64 (or ``dtype``).
        argnums: the argument(s) that the gradient is with respect to, as in `jax.grad`.
        returns: what ``grad_f`` returns: ``"grad"`` the gradient, with the tree of the argument (a tuple of them
            for several argnums); ``"value_and_grad"`` the pair ``(value, grad)``; ``"vjp"`` the pair
            ``(value, vjp_fn)`` where ``vjp_fn(cotangent)`` is a gradient.
        has_aux: f returns ``(value, aux)``, and ``grad_f`` what `jax.grad` or `jax.value_and_grad` would.
        dtype: ``"float64"``; or ``"float32"``, ``"bfloat16"``, ``"float16"``: ``grad_f`` then runs in that precision
            and on ``device``, with matmul precision "highest", and is judged against float64's reverse mode.
        device: where ``grad_f`` runs in a lower precision; the oracles always run on the CPU.
        rtol: tolerance over the leaf's scale; default 1e-11, 1e-4 in float32, 5e-2 in 16 bits.
        seed: of the cotangents and of what is probed of a large leaf.
        n_cotangents: how many random cotangents a function that is no scalar gets.
        max_elements: leaves up to this size get differences of every element; larger ones of so many (fewer where
            that is over 2³¹ numbers), the worst by autodiff among them, and along 4 random projections.
        kinks: what a gradient may be at a kink: ``"between"`` the one-sided derivatives, or what ``"autodiff"`` says,
            for a function that is written so that autodiff follows a convention, as mlpjax's own are.
        jit: compile each oracle as a whole; without it, checks of many functions of the same shapes are quicker.

    Returns:
        A `mlpjax.reports.GradientReport`: ``.ok``, ``.table()``, ``.to_json()``, ``.leaves``, ``.diagnose()``. A
        test says ``assert report.ok, str(report)``.

    Raises:
        InputError: (a `ValueError`) for an argument with integers, another tree or shape than the argument's (both
            are shown), an argument or a value of f that is not finite, and options that do not exist.

    Source: ``trap-f32``.

    >>> def f(w):
    ...     return jnp.sum(jnp.tanh(w) ** 2)
    >>> report = check_gradients(f, lambda w: 2 * jnp.tanh(w) * (1 - jnp.tanh(w)), jnp.arange(3.0))
    >>> report.ok, report.leaves[0].verdict, report.leaves[0].index
    (False, 'wrong', (1,))
    """
    if dtype not in RTOL:
        raise InputError(unknown_name("dtype", dtype, RTOL))
    if kinks not in KINKS:
        raise InputError(unknown_name("kinks", kinks, KINKS))
    for name, count, least in (("n_cotangents", n_cotangents, 1), ("max_elements", max_elements, 1), ("seed", seed, 0)):
        if isinstance(count, bool) or not hasattr(count, "__index__") or count < least:
            raise InputError(f"{name} is {count!r}: expected an integer ≥ {least}")
    if rtol is not None and not 0 < rtol < 1:
        raise InputError(f"rtol is {rtol!r}: expected a number between 0 and 1")
    rtol = RTOL[dtype] if rtol is None else rtol
    subject = prepare(f, grad_f, args, argnums, returns, has_aux)
    cpu = jax.devices("cpu")[0]
    if device is None:
        device = cpu if dtype == "float64" else next(iter(jnp.zeros(()).devices()))
    environment = {
        "dtype": dtype,
        "device": f"{device.platform} {device.device_kind}",
        "matmul_precision": "highest",
        "rtol": float(rtol),
        "seed": int(seed),
        "versions": versions(),
    }
    # what overflows on the way is judged, not warned of
    with jax.default_matmul_precision("highest"), jax.debug_nans(False), np.errstate(all="ignore"):
        if dtype == "float64":
            found = _in_float64(subject, cpu, rtol, seed, n_cotangents, max_elements, kinks == "between", jit)
        else:
            found = _in_low_precision(subject, cpu, device, dtype, rtol, seed, n_cotangents, kinks == "between")
    leaves, problems, notes, evidence = found
    return GradientReport(leaves, tuple(problems), tuple(notes), environment, evidence)


_Found = tuple[tuple[LeafReport, ...], list[str], list[str], Evidence | None]


def _in_float64(
    subject: Subject,
    cpu: jax.Device,
    rtol: float,
    seed: int,
    count: int,
    max_elements: int,
    between: bool,
    jit: bool,
) -> _Found:
    with jax.enable_x64(True), jax.default_device(cpu):
        args = cast(subject, np.float64, cpu)
        out, aux = value(subject, args)
        cots = cotangents(subject, out, count, seed)
        hand = hand_gradient(subject, args, cots)
        if problems := not_deterministic(subject, args, cots, out, hand):
            return (), problems, [], None
        target, auto = _reverse(subject, args, cots, jit)
        F = target.at(target.x)
        noise, rounding, value_noise = _rounding(subject, cots, hand, F, auto, jit, cpu)
        target = target._replace(rounding=rounding)
        tolerance = rtol * _per_leaf(subject, auto) + noise
        problems = value_problems(subject, args, cots, out, aux, hand, target, value_noise)
        excess = np.nan_to_num(np.abs(hand.grads - auto) / (tolerance + 1e-300), nan=np.inf).max(axis=0)
        probes = choose_probes(subject, target.x, np.where(excess > 1, excess, 0), max_elements, seed)
        judged = judge(subject, target, hand.grads, auto, tolerance, probes, between)
    notes = list(judged.notes)
    floats = [jnp.issubdtype(dtype, jnp.floating) and dtype != np.float64 for dtype in hand.dtypes]
    narrow = [path for path, is_narrow in zip(subject.paths, floats, strict=True) if is_narrow]
    if narrow:
        notes.append(f"grad_f is narrower than its arguments, float64, at {listed(narrow, 5)}: it rounds; see dtype=")
    bad = [leaf for leaf in judged.leaves if not leaf.ok]
    if bad and all(leaf.relative < _FLOAT32_LIKE for leaf in bad):
        notes.append("all differences are such as float32 makes: was it computed in float32? see dtype=")
    return judged.leaves, problems, notes, _evidence(subject, target.x, hand.grads, auto)


def _in_low_precision(
    subject: Subject,
    cpu: jax.Device,
    device: jax.Device,
    dtype: str,
    rtol: float,
    seed: int,
    count: int,
    between: bool,
) -> _Found:
    """Judge against the float64 answer at the rounded point, or where rounding decides, against autodiff beside it.

    A kink that float32 puts on the other side is there for the autodiff of that precision too, so an element may be
    near to either; and a leaf in which much cancels rounds there too, so the tolerance grows by 4 times its rounding.
    Where grad_f, run in float64, is within the tolerance, what it rounds more than autodiff may be 32 times as large.
    """
    with jax.enable_x64(False):
        # the same rounded numbers in both precisions
        subject = subject._replace(args=cast(subject, jnp.dtype(dtype), cpu))
    if not np.isfinite(flat(subject, subject.args).astype(np.float64)).all():
        raise InputError(f"the arguments are not finite in {dtype}: they are too large for it")
    with jax.enable_x64(True), jax.default_device(cpu):
        args = cast(subject, np.float64, cpu)
        out, aux = value(subject, args)
        cots = cotangents(subject, out, count, seed)
        target, truth = _reverse(subject, args, cots, jit=False)
        wide = hand_gradient(subject, args, cots).grads

    def run() -> tuple[Hand, np.ndarray, list[str]]:
        with jax.enable_x64(False), jax.default_device(device):
            args = cast(subject, jnp.dtype(dtype), device)
            hand = hand_gradient(subject, args, cots)
            # not compiled: then its forward pass rounds like that of the gradient function
            beside = _reverse(subject, args, cots, jit=False)[1].astype(np.float64)
            return hand, beside, not_deterministic(subject, args, cots, value(subject, args)[0], hand)

    try:
        hand, beside, problems = run()
    except jax.errors.JaxRuntimeError:
        # JAX confuses a NumPy constant of f that it has seen in float64 with the same one in float32
        jax.clear_caches()
        hand, beside, problems = run()
    eps, scale, error = float(jnp.finfo(dtype).eps), _per_leaf(subject, truth), np.abs(beside - truth)
    # what is far above the rest is a kink crossed, not rounding
    usual = np.maximum(1e-2 * scale, 4 * _per_leaf(subject, error, np.median))
    spread = _per_leaf(subject, np.where(error <= usual, error, 0))
    tolerance = rtol * scale + 4 * spread + _floor(subject, truth, eps, _per_leaf(subject, error))
    # a formula that is right in float64 may round more than autodiff does
    rounds = (np.abs(wide - truth) <= rtol * scale) & (np.abs(hand.grads - wide) <= _ROUNDING * rtol * scale)
    tolerance = np.where(rounds, np.maximum(tolerance, _ROUNDING * rtol * scale), tolerance)
    with jax.enable_x64(True), jax.default_device(cpu):
        leaves = judge_low(subject, target, hand.grads, truth, beside, tolerance, eps, between)
        problems += value_problems(subject, args, cots, out, aux, hand, target, rtol=rtol)
    notes = [f"judged by reverse mode in float64, at the point rounded to {dtype}; no other oracle was asked"]
    return leaves, problems, notes, _evidence(subject, target.x, hand.grads, truth)


def _reverse(subject: Subject, args: tuple[Any, ...], cots: list[Any], jit: bool) -> tuple[Target, np.ndarray]:
    F, x = function(subject, args, cots), flat(subject, args)
    try:
        target = Target(F, x, np.zeros(len(cots)), subject.split, jit, footprint(F, subject.split(x)))
        return target, reverse(target)
    except jax.errors.JaxRuntimeError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"f cannot be traced and differentiated by JAX ({type(error).__name__}): {reason}") from error


def _rounding(
    subject: Subject, cots: list[Any], hand: Hand, F: np.ndarray, auto: np.ndarray, jit: bool, cpu: jax.Device
) -> tuple[np.ndarray, np.ndarray, float]:
    """The rounding in float64 of the gradients ``(K, N)``, of F ``(K,)`` and of the value that grad_f gave.

    It is 2⁻²⁹ of what changes when the arguments are float32 ones.
    """
    own, largest = _per_leaf(subject, auto), _largest(auto)
    floor = _floor(subject, auto, _EPS, own)
    least = 8 * float(np.finfo(np.float64).tiny)
    try:
        # nobody asked for float32: what it makes JAX warn of is not the caller's concern
        with warnings.catch_warnings(action="ignore"):
            args = cast(subject, np.float32, cpu)
            given = hand_gradient(subject, args, cots)
            target32, auto32 = _reverse(subject, args, cots, jit)
            F32 = target32.at(target32.x)
            values = zip(_floats(hand.value), _floats(given.value), strict=True)
            value_noise = max([float(np.abs(a - b).max(initial=0)) for a, b in values], default=0.0)
    except Exception:  # the caller's functions may raise anything in a precision that they were not asked for
        return 1e3 * _EPS * own + floor, 8 * _EPS * np.abs(F) + least, 0.0
    changes = _per_leaf(subject, given.grads - hand.grads) + _per_leaf(subject, auto32 - auto)
    # a change of another kind, a jump or an overflow, says nothing of rounding
    known = (changes <= 1e-2 * own) | (changes <= 1e-4 * largest)
    noise = np.where(known, _ROUNDING * _SHIFT * changes, 1e3 * _EPS * own) + _floor(subject, auto, _EPS, changes)
    rounding = 4 * np.maximum(_EPS * np.abs(F), np.nan_to_num(_SHIFT * np.abs(F32 - F), posinf=0)) + least
    return noise, rounding, float(np.nan_to_num(_ROUNDING * _SHIFT * value_noise, posinf=0))


def _floats(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


def _floor(subject: Subject, auto: np.ndarray, eps: float, changes: np.ndarray) -> np.ndarray:
    """64 ε of the largest gradient, for a leaf that vanishes against it and consists of rounding: it ``changes``."""
    largest, own = 64 * eps * _largest(auto), _per_leaf(subject, auto)
    return np.where((own < largest) & (changes > 1e-2 * own), largest, 0)


def _per_leaf(subject: Subject, values: np.ndarray, reduce: Callable[..., Any] = np.max) -> np.ndarray:
    """max|v| (or another reduction) of each leaf, at every element of the leaf; ``(K, N) -> (K, N)``."""
    out = np.zeros(values.shape)
    for start, end in zip([0, *subject.ends[:-1]], subject.ends, strict=True):
        if end > start:
            size = np.abs(values[:, start:end])
            out[:, start:end] = reduce(np.where(np.isfinite(size), size, 0), axis=1, keepdims=True)
    return out


def _largest(auto: np.ndarray) -> np.ndarray:
    return np.abs(np.where(np.isfinite(auto), auto, 0)).max(axis=1, keepdims=True)


def _evidence(subject: Subject, x: np.ndarray, hand: np.ndarray, truth: np.ndarray) -> Evidence:
    leaves, given, right = (tuple(subject.split(v)) for v in (x.astype(np.float64), hand[0], truth[0]))
    return Evidence(subject.f, subject.args, subject.paths, leaves, given, right)
