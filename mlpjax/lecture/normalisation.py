"""Normalisation of the inputs: standardising, min–max, and what they do to gradient descent (batch-norm is apart)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.activations import sigmoid_derivative
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.conditioning import RANGES, curvature, descent_steps, raw_weights, two_scales
from mlpjax.initializers import glorot_normal
from mlpjax.preprocess import SCALERS, min_max, standardise
from mlpjax.risk import gradient_descent

X = np.array([[1.0, 10.0, 7.0], [2.0, 30.0, 7.0], [3.0, 20.0, 7.0], [4.0, 60.0, 7.0]])
"""Four examples of three features, of which the last is constant."""

W = np.array([1.0, 2.0])
"""The weights that made y = XW where gradient descent looks for them."""


def norm_standardise_mean() -> tuple[Claim, ...]:
    """The mean of every feature is found, and taken away."""
    scaler = standardise(X)
    z = np.asarray(scaler.transform(X), np.float64)
    return (
        agree("μ of three features", scaler.shift, [2.5, 30.0, 7.0]),
        holds("transformed features have mean 0", np.abs(z.mean(axis=0)).max() < 1e-7, str(z.mean(axis=0))),
    )


@printed("err-std-order", lambda x: np.sqrt(np.mean((x - x.mean(axis=0) - x.mean(axis=0)) ** 2, axis=0)))
@printed("err-std-zero", lambda x: x.std(axis=0))
def norm_standardise_std(form: Callable[..., Any] = lambda x: standardise(x).scale) -> tuple[Claim, ...]:
    """σ is that of the original x with 1/m, and a constant feature is divided by 1."""
    spread = np.sqrt(np.mean(X**2, axis=0) - np.mean(X, axis=0) ** 2)
    scale = form(X)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (X - X.mean(axis=0)) / scale
    return (
        agree("σ of 1, 2, 3, 4 is √(5/4)", scale[0], np.sqrt(1.25)),
        agree("σ² = E[x²] − μ² of the features that vary", scale[:2], spread[:2]),
        equal("the constant feature becomes 0, not 0/0", z[:, 2], np.zeros(4)),
        agree("standard deviation 1 afterwards", z[:, :2].std(axis=0), [1.0, 1.0]),
    )


def norm_standardise_def() -> tuple[Claim, ...]:
    """Every scaling is (x − location)/scale, and its inverse is x · scale + location."""
    claims = []
    for name, fit in SCALERS.items():
        scaler = fit(X)
        z = scaler.transform(X)
        claims.append(agree(f"{name}: (x − location)/scale", z, (X - scaler.shift) / scaler.scale, tol=1e-7))
        claims.append(agree(f"{name}: there and back", scaler.inverse(z), X, tol=1e-7))
    return tuple(claims)


def norm_train_stats() -> tuple[Claim, ...]:
    """New data are moved by the μ and σ of the training data, not by their own."""
    scaler = standardise(np.array([[0.0], [2.0]]))
    test = np.array([[10.0], [12.0]])
    z = scaler.transform(test)
    return (
        equal("10 and 12 after training on 0 and 2", z[:, 0], [9.0, 11.0]),
        equal("a row does not depend on the others", scaler.transform(test[:1]), z[:1]),
        holds("the mean of the test data is not 0", z.mean() == 10.0, float(z.mean())),
    )


@printed("err-minmax", lambda x: (x - x.min()) / (x.max() - x.min()))
def norm_minmax(form: Callable[..., Any] = lambda x: min_max(x).transform(x)) -> tuple[Claim, ...]:
    """Each feature fills [0, 1] on the training data; other data may leave it."""
    z = form(X)
    outside = min_max(X).transform(X + np.array([[1.0, 0.0, 0.0]]))
    return (
        equal("smallest value of each feature", z.min(axis=0), np.zeros(3)),
        equal("largest value, the constant feature being 0", z.max(axis=0), [1.0, 1.0, 0.0]),
        agree("1, 2, 3, 4 in thirds", z[:, 0], np.arange(4) / 3, tol=1e-7),
        agree("a value above the training maximum", outside[-1, 0], 4 / 3, tol=1e-7),
    )


def norm_scale_example() -> tuple[Claim, ...]:
    """The data of the example fill the two ranges and average at their middles."""
    x = two_scales(1000)
    low, high = np.transpose(RANGES)
    error = np.abs(x.mean(axis=0) - (low + high) / 2) / (high - low)
    return (
        holds("all of x in its ranges", np.all((x >= low) & (x < high)), f"{x.min(axis=0)} to {x.max(axis=0)}"),
        holds("99 % of each range is used", np.all(np.ptp(x, axis=0) > 0.99 * (high - low)), str(np.ptp(x, axis=0))),
        holds("the means within 4 standard errors", np.all(error < 4 / np.sqrt(12 * 1000)), str(error)),
    )


def norm_weights_differ() -> tuple[Claim, ...]:
    """Least squares on raw and on standardised inputs: w_raw = w/σ, so that weights differ as the scales do."""
    x = two_scales(200)
    y = np.sin(np.arange(200.0))
    scaler = standardise(x)

    def least_squares(inputs: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(np.column_stack([inputs, np.ones(200)]), y, rcond=None)[0]

    raw, scaled = least_squares(x), least_squares((x - scaler.shift) / scaler.scale)
    W, b = raw_weights(scaler, scaled[:2, None], scaled[2:])
    ratio = scaler.scale[0] / scaler.scale[1]
    equal_effect = raw_weights(scaler, np.ones((2, 1)), np.zeros(1))[0]
    return (
        agree("w_raw = w/σ against a fit to raw inputs", W[:, 0], raw[:2], tol=1e-9),
        agree("b_raw against a fit to raw inputs", b[0], raw[2], tol=1e-9),
        agree("equal effect: w₂/w₁ = σ₁/σ₂", equal_effect[1, 0] / equal_effect[0, 0], ratio),
        holds("that ratio is nearly 1000", 900 < ratio < 1100, float(ratio)),
    )


def norm_conditioning() -> tuple[Claim, ...]:
    """The condition number of XᵀX/m, and the largest step, raw, standardised and min–max."""
    (a, b), (c, d) = RANGES
    mixed = (a + b) * (c + d) / 4
    moments = np.array([[(a * a + a * b + b * b) / 3, mixed], [mixed, (c * c + c * d + d * d) / 3]])
    expected = {"none": np.linalg.cond(moments), "standardise": 1.0, "minmax": 7.0}
    claims = []
    for name, z in _scaled(1000).items():
        found = curvature(z)
        error = [_distance(z, share * found.largest_step) for share in (0.99, 1.01)]
        claims += [
            agree(f"{name}: λ_min and λ_max of XᵀX/m", found, np.linalg.eigvalsh(z.T @ z / len(z)), tol=1e-9),
            agree(f"{name}: κ, against that of the distribution", found.condition, expected[name], tol=0.2),
            holds(f"{name}: 2/λ_max is the largest step", error[0] < np.linalg.norm(W) < error[1], str(error)),
        ]
    return tuple(claims)


def norm_gd_path() -> tuple[Claim, ...]:
    """Steps to the minimum: millions on raw inputs, a handful on standardised ones; the path on raw ones zig-zags."""
    data = _scaled(200)
    alpha = {name: curvature(z).best_step for name, z in data.items()}
    steps = {name: descent_steps(z, z @ W, alpha[name]) for name, z in data.items()}
    z, count = data["minmax"], steps["minmax"]
    error = np.linalg.norm(_walk(z, alpha["minmax"], count) - W, axis=1) / np.linalg.norm(W)
    path = _walk(data["none"], alpha["none"], 20)[:, 0]
    return (
        holds("the walk itself needs as many steps as counted", error[-1] <= 1e-6 < error[-2], f"{count} steps"),
        holds("min–max needs more than standardised", count > steps["standardise"], str(steps)),
        holds("raw needs 100,000 times as many as min–max", steps["none"] > 1e5 * count, str(steps)),
        equal("raw: w₁ turns back at every step", np.sum(np.diff(np.sign(np.diff(path))) != 0), 19),
    )


def norm_benefits() -> tuple[Claim, ...]:
    """Similar weights, a larger step, units that are not saturated, and numbers that lose fewer digits."""
    x = two_scales(200)
    scaler = standardise(x)
    z = scaler.transform(x)
    draw = glorot_normal(jax.random.key(0), (2, 8), jnp.float64)
    raw, scaled = (float(jnp.mean(sigmoid_derivative(jnp.asarray(inputs) @ draw))) for inputs in (x, z))
    gain = curvature(z).largest_step / curvature(x).largest_step
    effect = raw_weights(scaler, np.ones((2, 1)), np.zeros(1))[0][:, 0]
    error = [_error_in_float32(inputs) for inputs in (x, z)]
    return (
        holds("weights of equal effect: nearly 1 : 1000 on raw inputs", effect[1] > 900 * effect[0], str(effect)),
        holds("the largest step grows more than 100,000 times", gain > 1e5, float(gain)),
        holds("mean σ′(z): above 0.15 scaled, below 0.02 raw", scaled > 0.15 and raw < 0.02, f"{scaled}, {raw}"),
        holds("normal equations in float32: 100 times the error on raw inputs", error[0] > 100 * error[1], str(error)),
    )


def _scaled(m: int) -> dict[str, np.ndarray]:
    """The example, by the name of the scaling, in float64."""
    x = two_scales(m)
    scalers = {name: fit(x) for name, fit in SCALERS.items()}
    return {name: (x - scaler.shift) / scaler.scale for name, scaler in scalers.items()}


def _walk(z: np.ndarray, alpha: float, steps: int) -> np.ndarray:
    """Gradient descent from w = 0 on (1/2m) ‖Zw − Z W‖²: the path (steps + 1, 2)."""
    m, y = len(z), z @ W
    return np.asarray(gradient_descent(lambda w: z.T @ (z @ w - y) / m, jnp.zeros(2), alpha, steps))


def _distance(z: np.ndarray, alpha: float) -> float:
    """How far 200 steps of gradient descent end from the w that made y."""
    return float(np.linalg.norm(_walk(z, alpha, 200)[-1] - W))


def _error_in_float32(x: np.ndarray) -> float:
    """How far the normal equations XᵀX w = Xᵀy, solved in float32, are from the w that made y."""
    x = x.astype(np.float32)
    w = np.linalg.solve(x.T @ x, x.T @ (x @ W.astype(np.float32)))
    return float(np.linalg.norm(w - W))
