"""Checks of *Activation functions*: the vanishing gradient, and tanh against sigmoid in a network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

import mlpjax
from mlpjax.activations import relu_derivative
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.passes import RULES, run_backward, run_pass
from mlpjax.vanishing import chain_bound, chain_gradients, deep_signals


def act_tanh_vs_sigmoid() -> tuple[Claim, ...]:
    """Activations of tanh have a mean near 0, those of σ near ½; the same network learns faster with tanh."""
    means = {name: deep_signals(name, 6).a_mean for name in ("tanh", "sigmoid")}
    after = {name: float(np.median(_losses_after(name))) for name in ("tanh", "sigmoid")}
    return (
        holds(
            "largest ∣mean∣ of a layer of tanh", np.abs(means["tanh"]).max() < 0.1, float(np.abs(means["tanh"]).max())
        ),
        holds("least mean of a layer of σ", means["sigmoid"].min() > 0.4, float(means["sigmoid"].min())),
        holds(
            "J after 200 steps, median of 5 seeds",
            after["tanh"] < after["sigmoid"],
            f"tanh {after['tanh']:.3f}, σ {after['sigmoid']:.3f}",
        ),
    )


def _losses_after(activation: str) -> jax.Array:
    """J of five networks with one hidden layer on y = x₁x₂ after 200 steps of gradient descent with α = 0.2."""
    config = mlpjax.Config(sizes=(2, 8, 1), activation=activation, head="regression")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 2))
    batch = mlpjax.Batch(x, x[:, :1] * x[:, 1:])

    @jax.jit
    @jax.vmap
    def step(params: Any) -> Any:
        (J, _aux), grads = mlpjax.backward(config, params, (), batch)
        return jax.tree.map(lambda p, dp: p - 0.2 * dp, params, grads), J

    shapes = ((5, 2, 8), (5, 8, 1))
    params: Any = tuple(
        mlpjax.Layer(jnp.asarray(rng.normal(size=s) / np.sqrt(s[1])), jnp.zeros((5, s[2]))) for s in shapes
    )
    for _ in range(200):
        params, J = step(params)
    return J


@printed("err-hadamard-missing", lambda dz, W, slope: dz @ (W.T * slope))
def act_vanish_reminder(form: Any = lambda dz, W, slope: (dz @ W.T) * slope) -> tuple[Claim, ...]:
    """The recursion and the sum over the examples give what the backward pass finds, and J's central differences."""
    # m = n_2 = 3: the shapes of the printed form fit, and its numbers are wrong
    rng = np.random.default_rng(0)
    x, y, W1, W2 = (rng.normal(size=s) for s in ((3, 2), (3, 3), (2, 4), (4, 3)))
    config = mlpjax.Config(sizes=(2, 4, 3), activation="tanh", head="regression")
    params = mlpjax.Layer(jnp.asarray(W1), jnp.zeros(4)), mlpjax.Layer(jnp.asarray(W2), jnp.zeros(3))
    found = run_backward(config, params, run_pass(config, params, (), mlpjax.Batch(x, y), True, None), RULES)

    def J(b: np.ndarray) -> float:
        return float(np.sum((np.tanh(x @ W1 + b) @ W2 - y) ** 2) / 6)

    differences = [(J(h) - J(-h)) / 2e-5 for h in 1e-5 * np.eye(4)]
    dz = form(np.asarray(found.dz_output), W2, 1 / np.cosh(x @ W1) ** 2)
    return (
        agree("dZ[1]", dz, found.hidden[0].dz),
        agree("Σᵢ dZ[1]", np.sum(dz, axis=0), differences, tol=1e-8),
        agree("db[1] of the backward pass", found.params[0].b, differences, tol=1e-8),
    )


def act_vanish_chain() -> tuple[Claim, ...]:
    """The product of the slide for L = 4, written out; all ∂L/∂b by central differences, and by the recursion."""
    w, b, x, y = np.array([0.5, -1.5, 2.0, 0.8]), np.array([0.1, 0.3, -0.4, 0.2]), 0.7, 0.25

    def activations(b: np.ndarray) -> list[float]:
        a = [x]
        for weight, bias in zip(w, b, strict=True):
            a.append(float(expit(a[-1] * weight + bias)))
        return a

    _, a1, a2, a3, a4 = activations(b)
    s1, s2, s3, s4 = (a * (1 - a) for a in (a1, a2, a3, a4))
    db = chain_gradients(w, b, x, a4 - y).db
    L = [[(activations(b + h)[-1] - y) ** 2 / 2 for h in (step, -step)] for step in 1e-5 * np.eye(4)]
    # one more layer of weight 1 makes ½(a[4] − y)² of it
    config = mlpjax.Config(sizes=(1,) * 6, activation="sigmoid", head="regression")
    params = tuple(mlpjax.Layer(jnp.full((1, 1), v), jnp.full(1, c)) for v, c in zip([*w, 1.0], [*b, 0.0], strict=True))
    _, grads = mlpjax.backward(config, params, (), mlpjax.Batch(np.full((1, 1), x), np.full(1, y)))
    return (
        agree("∂L/∂b[1] as on the slide", db[0], (a4 - y) * s4 * w[3] * s3 * w[2] * s2 * w[1] * s1),
        agree("all ∂L/∂b[l] against central differences", db, [(up - down) / 2e-5 for up, down in L], tol=1e-8),
        agree("all ∂L/∂b[l] against backward", db, np.concatenate([np.asarray(layer.b) for layer in grads[:4]])),
    )


def act_vanish_bound() -> tuple[Claim, ...]:
    """The bound holds for 30 chains; it is reached where all z are 0, and with w = 8 it grows with the depth."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(30):
        # b near −w/2, which is where a[l−1] = ½ makes z = 0
        w, noise = rng.normal(scale=3, size=10), rng.normal(scale=0.3, size=10)
        shares.append(float(jnp.abs(chain_gradients(w, noise - w / 2, 0.5).db[0]) / chain_bound(w)))
    w, b = np.full(10, 8.0), np.full(10, -4.0)
    return (
        holds("∣∂L/∂b[1]∣ over the bound", max(shares) <= 1, max(shares)),
        equal("z = 0 in all 10 layers, w = 8: 2¹⁰/8", chain_gradients(w, b, 0.5).db[0], 128.0),
        equal("the bound there", chain_bound(w), 128.0),
    )


def act_vanish_experiment() -> tuple[Claim, ...]:
    """In networks of σ the gradient falls by one factor per layer; with weights 16 times as large it does not."""
    norms = {depth: deep_signals("sigmoid", depth).dz_norm for depth in (10, 20, 30)}
    logs = np.log(norms[30])
    factor = float(np.exp((logs[0] - logs[-1]) / 29))
    first = [float(norms[depth][0]) for depth in norms]
    large = deep_signals("sigmoid", 20, scale=16.0).dz_norm
    straight = float(np.corrcoef(logs, np.arange(30))[0, 1])
    return (
        holds("∥dZ[1]∥ at depth 10, 20, 30", first[1] < 1e-5 * first[0] and first[2] < 1e-5 * first[1], first),
        holds("log ∥dZ[l]∥ is a straight line in l", straight > 0.999, straight),
        holds("the factor per layer, about ¼", 0.2 < factor < 0.3, factor),
        holds("∥dZ[1]∥/∥dZ[20]∥ with weights 16 times as large", large[0] > large[-1], float(large[0] / large[-1])),
    )


def act_vanish_relu() -> tuple[Claim, ...]:
    """An active ReLU passes the gradient on as it is; 20 layers keep its size under He's weights, not under 1/n."""
    ratio = {}
    for name in ("he_normal", "lecun_normal"):
        norms = deep_signals("relu", 20, init_name=name).dz_norm
        ratio[name] = float(norms[0] / norms[-1])
    return (
        equal("the slope of an active unit", relu_derivative(jnp.array([0.1, 5.0])), np.ones(2)),
        equal(
            "10 active units with w = 1",
            chain_gradients(np.ones(10), np.zeros(10), 1.0, activation="relu").db,
            np.ones(10),
        ),
        holds("∥dZ[1]∥/∥dZ[20]∥ under He's weights", 0.1 < ratio["he_normal"] < 10, ratio["he_normal"]),
        holds("∥dZ[1]∥/∥dZ[20]∥ under variance 1/n", ratio["lecun_normal"] < 0.01, ratio["lecun_normal"]),
    )
