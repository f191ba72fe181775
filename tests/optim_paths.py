"""What the tests of the optimisers share: a problem of 100 steps, and the path of an optimiser on it in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS = 100
RNG = np.random.default_rng(5)
START = {"W": RNG.normal(size=(3, 2)), "b": RNG.normal(size=2), "slope": None}
# gradients of very different sizes, and for one weight mostly none at all
SIZES = {"W": np.array([[1.0, 1e-4], [3.0, 1e-7], [1e-2, 1.0]]), "b": np.array([1.0, 20.0])}
NOISE = {"W": RNG.normal(size=(STEPS, 3, 2)), "b": RNG.normal(size=(STEPS, 2))}
NOISE["W"][:, 2, 1] *= RNG.random(STEPS) < 0.1
ALPHA, BETA = 0.02, 0.9


def rate(t):
    """The α of step t = 1, 2, …: a warm-up, then half a cosine."""
    if t <= 20:
        return ALPHA * (0.1 + 0.9 * (t - 1) / 20)
    return ALPHA * (1 + np.cos(np.pi * (t - 21) / (STEPS - 20))) / 2


def rates(count):
    """`rate` as a schedule of the number of steps before, in float64; optax's have float32."""
    return jnp.array([rate(t) for t in range(1, STEPS + 2)])[count]


def gradient(name, theta, noise, sin=np.sin):
    """∂J/∂θ = size (sin θ + noise), and 0 where the noise is: not convex, and no two steps alike."""
    return SIZES[name] * (sin(theta) * (noise != 0) + noise)


def paths(optimizers, seen=lambda params, state: params):
    """What is ``seen`` of each optimiser after each of the steps, stacked; in one loop, which compiles once."""

    def step(walks, noise):
        after, views = {}, {}
        for name, (params, state) in walks.items():
            grads = {leaf: gradient(leaf, params[leaf], noise[leaf], jnp.sin) for leaf in NOISE}
            updates, state = optimizers[name].update({**grads, "slope": None}, state, params)
            after[name] = (optax.apply_updates(params, updates), state)
            views[name] = seen(*after[name])
        return after, views

    start = jax.tree.map(jnp.asarray, START)
    walks = {name: (start, optimizer.init(start)) for name, optimizer in optimizers.items()}
    return jax.lax.scan(step, walks, jax.tree.map(jnp.asarray, NOISE))[1]


def literal(rule):
    """The path of ``rule(theta_0, d) -> {t: θ[t]}``, where d(θ, t) is the gradient in step t, by NumPy."""
    paths = {"slope": None}
    for name in NOISE:
        theta = rule(START[name], lambda theta, t, name=name: gradient(name, theta, NOISE[name][t - 1]))
        paths[name] = np.stack([theta[t] for t in range(1, STEPS + 1)])
    return paths


def assert_paths(found, expected, tol=1e-12):
    """Compare trees, relative to the largest value that a leaf ever has along the path."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tol, atol=tol * np.abs(b).max(initial=0.0)), found, expected
    )
