"""Checks of the section *Weight initialisation*, second part: the scale of the weights, and of signals in depth."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import variance_scaling

import mlpjax
from mlpjax import Config, Layer
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.initializers import glorot_normal, glorot_uniform, he_normal, lecun_normal
from mlpjax.layers import affine_forward
from mlpjax.signals import (
    WEIGHT_VARIANCES,
    WeightVariance,
    deep_linear,
    deep_linear_dx,
    mean_slope,
    mean_square,
    scale_factor,
    scaled_identities,
    signal_std,
    sum_variance,
)

_STDS = (0.01, 0.1, 1.0, 10.0)
_DEEP = (64,) * 13


def _falls(values: list[float]) -> bool:
    return all(a > b for a, b in itertools.pairwise(values))


def _shown(values: object) -> str:
    return ", ".join(f"{value:.3g}" for value in np.asarray(values))


def _standard_error(W: np.ndarray) -> float:
    """Of a normal sample's variance, as a part of it."""
    return float(np.sqrt(2 / W.size))


def init_big_w() -> tuple[Claim, ...]:
    """The larger the weights, the smaller the mean slope of σ and tanh."""
    claims = []
    for g in ("sigmoid", "tanh"):
        slopes = [mean_slope(g, std, (64, 64), jax.random.key(0), m=64) for std in _STDS]
        claims.append(holds(f"{g}′ for std {_STDS}", _falls(slopes), _shown(slopes)))
        claims.append(holds("at std 10 a tenth of the largest slope or less", slopes[-1] < slopes[0] / 10, slopes[-1]))
    return tuple(claims)


def init_small_w() -> tuple[Claim, ...]:
    """Std 0.01 keeps σ and tanh where they are steepest; over many layers the signal vanishes with it."""
    deep = signal_std(_DEEP, "tanh", WEIGHT_VARIANCES["0.01²"], jax.random.key(0))
    return (
        agree("σ′ at std 0.01", mean_slope("sigmoid", 0.01, (64, 64), jax.random.key(0), m=64), 0.25, 0.01),
        agree("tanh′ at std 0.01", mean_slope("tanh", 0.01, (64, 64), jax.random.key(0), m=64), 1.0, 0.02),
        agree("a layer multiplies by 0.01 √64", deep.activations[-1], (0.01 * 8) ** 12, 0.5),
        holds("after 12 layers", deep.activations[-1] < 1e-9, float(deep.activations[-1])),
    )


def init_deep_linear() -> tuple[Claim, ...]:
    """Identity activations and b = 0: Ŷ = X W[1] W[2] … W[L]."""
    rng: Any = np.random.default_rng(0)
    x = rng.normal(size=(5, 3))
    weights = [rng.normal(size=shape) for shape in ((3, 4), (4, 6), (6, 2))]
    found = deep_linear(x, weights)
    config = Config(sizes=(3, 4, 6, 2), activation="identity", head="regression")
    params = tuple(Layer(jnp.asarray(W), jnp.zeros(W.shape[1])) for W in weights)
    return (
        agree("against the product of all matrices", found, np.linalg.multi_dot([x, *weights])),
        agree("the network with g(z) = z", jax.jit(mlpjax.forward)(config, params, (), x)[0], found),
    )


def _scaled(c: float) -> tuple[Claim, ...]:
    x, W_out = jnp.array([[1.0, 2.0], [-3.0, 0.5]]), np.array([[1.0], [-2.0]])
    found = [deep_linear(x, scaled_identities(c, depth, W_out)) for depth in (2, 50)]
    return (
        agree(f"L = 2: {c} X W", found[0], c * x @ W_out),
        agree(f"L = 50: {c}⁴⁹ X W", found[1], np.prod(np.full(49, c)) * (x @ W_out)),
    )


def init_explode_15() -> tuple[Claim, ...]:
    """W = 1.5 I in all layers but the last multiplies ŷ by 1.5^{L−1}: 4.25e8 for L = 50."""
    return (*_scaled(1.5), agree("1.5⁴⁹", scale_factor(1.5, 50), 4.25e8, 2e-3))


def init_vanish_05() -> tuple[Claim, ...]:
    """W = 0.5 I multiplies ŷ by 0.5^{L−1}: 1.776e-15 for L = 50."""
    return (*_scaled(0.5), agree("0.5⁴⁹", scale_factor(0.5, 50), 1.776e-15, 1e-3))


def init_explode_gradient() -> tuple[Claim, ...]:
    """The gradient of X explodes or vanishes by the same factor as ŷ."""
    x, W_out, dyhat = jnp.ones((3, 2)), jnp.array([[1.0], [-2.0]]), jnp.array([[1.0], [0.5], [-1.0]])
    claims = []
    for c in (1.5, 0.5):
        weights = scaled_identities(c, 20, W_out)
        dx = deep_linear_dx(dyhat, weights)
        by_grad = jax.grad(lambda x, weights=weights: jnp.sum(dyhat * deep_linear(x, weights)))(x)
        claims.append(agree(f"c = {c}: dX against jax.grad", dx, by_grad))
        ratio = np.linalg.norm(by_grad) / np.linalg.norm(dyhat @ W_out.T)
        claims.append(agree("its norm against c¹⁹ times that of L = 1", scale_factor(c, 20), ratio))
    return tuple(claims)


def init_neuron_sum() -> Claim:
    """One neuron: z = w₁x₁ + … + w_n x_n + b."""
    x, w, b = [1.0, -2.0, 0.5, 3.0], [0.1, 0.2, 0.3, -0.4], 0.7
    z, _ = affine_forward(jnp.array([x]), jnp.array(w)[:, None], jnp.array([b]))
    return agree("the sum, term by term", z[0, 0], sum(w_d * x_d for w_d, x_d in zip(w, x, strict=True)) + b)


def init_var_1n() -> tuple[Claim, ...]:
    """Var(z) = n Var(w) E[x²], with E[x²] even where x has a mean; Var(w) = 1/n keeps the scale."""
    n, rows = 50, 40_000
    rng: Any = np.random.default_rng(0)
    w = rng.normal(0, np.sqrt(1 / n), (rows, n))
    claims = []
    for what, x in (("x uniform in [0, 1)", rng.uniform(size=(rows, n))), ("x ~ N(0, 1)", rng.normal(size=(rows, n)))):
        expected = sum_variance(n, WEIGHT_VARIANCES["1/n"](n, 1), 1 / 3 if "uniform" in what else 1.0)
        measured = np.var(np.sum(w * x, axis=1))
        claims.append(agree(f"{what}: measured, within 3 s.e.", measured, expected, 3 * np.sqrt(2 / rows)))
    return (*claims, agree("x ~ N(0, 1): the variance is kept", expected, 1.0))


def _randn(shape: tuple[int, int]) -> np.ndarray:
    return np.random.randn(shape) * np.sqrt(1 / shape[0])  # type: ignore[call-overload]  # noqa: NPY002


@printed("err-randn-shape", _randn)
def init_lecun(draw: Any = lambda shape: lecun_normal(jax.random.key(0), shape, jnp.float64)) -> tuple[Claim, ...]:
    """W of a layer is N(0, 1) · √(1/n_in), not truncated."""
    W = np.asarray(draw((192, 64)))
    oracle = variance_scaling(1.0, "fan_in", "normal")(jax.random.key(0), (192, 64), jnp.float64)
    return (
        agree("192 · Var(w), within 3 s.e.", 192 * W.var(), 1.0, 3 * _standard_error(W)),
        agree("jax.nn's variance_scaling with the same key", W, oracle),
        agree("part beyond 2σ, as of N(0, 1)", np.mean(np.abs(W) > 2 / np.sqrt(192)), 0.0455, 0.1),
    )


def init_he() -> tuple[Claim, ...]:
    """Var(w) = 2/n for ReLU, as E[relu(z)²] = ½ Var(z): the scale is kept; 1/n loses half in each layer."""
    key = jax.random.key(0)
    he, lecun = (signal_std(_DEEP, "relu", WEIGHT_VARIANCES[v], key).activations for v in ("2/n", "1/n"))
    W = he_normal(key, (192, 64), jnp.float64)
    return (
        agree("E[relu(z)²] for Var(z) = 3", mean_square("relu", 3.0), 1.5),
        agree("He against variance_scaling", W, variance_scaling(2.0, "fan_in", "normal")(key, W.shape, jnp.float64)),
        holds("std after 1 and 12 layers, 2/n", he[12] > he[1] / 2, _shown(he[jnp.array([1, 12])])),
        agree("the same draws with 1/n lose √½ a layer", lecun[12], he[12] / 2**6),
    )


def init_xavier_slide() -> tuple[Claim, ...]:
    """1/n_in, under the name Xavier: what the package calls LeCun, and Glorot's own only where n_in = n_out."""
    lecun, glorot = WEIGHT_VARIANCES["1/n"], WEIGHT_VARIANCES["glorot"]
    W = np.asarray(lecun_normal(jax.random.key(0), (192, 64), jnp.float64))
    return (
        agree("variance of lecun_normal, 192 → 64", W.var(), 1 / 192, 3 * np.sqrt(2 / W.size)),
        agree("n_in = n_out: equal", lecun(100, 100), glorot(100, 100)),
        agree("192 → 64: Glorot's is larger by", glorot(192, 64) / lecun(192, 64), 1.5),
    )


@printed("err-bengio", WEIGHT_VARIANCES["product"])
def init_bengio_slide(variance: WeightVariance = WEIGHT_VARIANCES["glorot"]) -> tuple[Claim, ...]:
    """Read with the sum n_in + n_out the formula keeps the signal; with the product it is gone after a few layers."""
    key = jax.random.key(0)
    kept = signal_std(_DEEP, "identity", variance, key)
    lost = signal_std(_DEEP, "identity", WEIGHT_VARIANCES["product"], key)
    return (
        holds("std after 12 layers, between ½ and 2", 0.5 < kept.activations[-1] < 2, float(kept.activations[-1])),
        holds("of the gradient of X too", 0.5 < kept.gradients[0] < 2, float(kept.gradients[0])),
        agree("the product: a layer multiplies by √(2/64)", lost.activations[-1], (2 / 64) ** 6, 0.5),
    )


@printed("err-bengio", WEIGHT_VARIANCES["product"])
@printed("err-xavier", WEIGHT_VARIANCES["1/n"])
def init_glorot(variance: WeightVariance = WEIGHT_VARIANCES["glorot"]) -> tuple[Claim, ...]:
    """Var(w) = 2/(n_in + n_out): as much too large one way as too small the other way."""
    key, shape = jax.random.key(0), (192, 64)
    found = signal_std(shape, "identity", variance, key)
    forward, back = found.activations[1] ** 2, found.gradients[0] ** 2
    normal, uniform = (draw(key, shape, jnp.float64) for draw in (glorot_normal, glorot_uniform))
    return (
        agree("mean of n_in Var(w) and n_out Var(w)", (192 * variance(*shape) + 64 * variance(*shape)) / 2, 1.0),
        agree("measured, forward and backward: mean", (forward + back) / 2, 1.0, 0.1),
        agree("forward 1.5, backward 0.5", np.stack([forward, back]), [1.5, 0.5], 0.1),
        agree("glorot_normal", normal, variance_scaling(1.0, "fan_avg", "normal")(key, shape, jnp.float64)),
        agree("glorot_uniform", uniform, variance_scaling(1.0, "fan_avg", "uniform")(key, shape, jnp.float64)),
    )


def init_std_depth() -> tuple[Claim, ...]:
    """Activations and gradients against depth, for six variances and three activations."""
    key, layers = jax.random.key(0), 12
    table = {
        (g, v): signal_std(_DEEP, g, f, key) for g in ("identity", "tanh", "relu") for v, f in WEIGHT_VARIANCES.items()
    }
    claims = []
    for name, variance in WEIGHT_VARIANCES.items():
        found, per_layer = table["identity", name], np.sqrt(64 * variance(64, 64))
        ends = np.log([found.activations[-1], found.gradients[0]]) / layers
        claims.append(
            agree(
                f"linear, {name}: log std per layer",
                ends,
                np.full(2, np.log(per_layer)),
                0.05 / abs(np.log(per_layer) or 1),
            )
        )
    relu, tanh = table["relu", "2/n"], table["tanh", "1/n"]
    saturated = table["tanh", "1"]
    return (
        *claims,
        holds(
            "ReLU, 2/n: kept both ways",
            min(relu.activations[-1], relu.gradients[0]) > 0.3,
            _shown([relu.activations[-1], relu.gradients[0]]),
        ),
        holds("tanh, 1/n: fades slowly", 0.1 < tanh.activations[-1] < 0.5, float(tanh.activations[-1])),
        holds("tanh, 1: saturated at ±1", saturated.activations[-1] > 0.9, float(saturated.activations[-1])),
        holds(
            "0.01²: vanished, whatever g",
            max(table[g, "0.01²"].activations[-1] for g in ("identity", "tanh", "relu")) < 1e-9,
            "below 1e-9",
        ),
        equal("entries per curve", [relu.activations.size, relu.gradients.size], [13, 13]),
    )
