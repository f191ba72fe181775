"""How long the norms of single examples' gradients take: from activations and deltas, and from the gradients formed.

784-256-10 relu, softmax and cross-entropy, 256 examples, float32, everything compiled. `per_example_norms` beside
vmap(grad) with the norm of its result, beside `per_example_gradients`, which forms the same arrays by hand, and beside
one `backward` of the batch. In every round each way has its turn, and a ratio is the median over the rounds of ratios
within one round. Claims: vmap(grad) takes at least 5 times as long as the norms, which take at most 1.5 times as long
as one backward; the norms agree with those of vmap(grad) to 1e-5.

    uv run python experiments/per_example.py

Writes experiments/results/per_example.json, and exits with an error when a claim is missed.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mlpjax
from mlpjax import Batch, Config
from mlpjax.noise_scale import gradient_statistics
from mlpjax.per_example import per_example_gradients, per_example_norms
from mlpjax.versions import versions

CLAIMS = {"vmap(grad) and norm : norms": 5.0, "norms : backward": 1.5, "difference": 1e-5}
SIZES = (784, 256, 10)
EXAMPLES = 256
ROUNDS = 15
SECONDS = 0.2
"""How long the calls of one time last, at least two of them."""
RATIOS = [
    ("vmap(grad) and norm", "norms"),
    ("gradients", "norms"),
    ("norms", "backward"),
    ("statistics", "backward"),
]


def norms_by_vmap(config: Config, params: Any, state: Any, batch: Batch) -> jax.Array:
    """The same norms: every gradient by autodiff, then its length."""

    def loss_of_one(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return mlpjax.loss(config, params, state, Batch(x[None], y[None]), train=False)[0]

    grads = jax.vmap(jax.grad(loss_of_one), (None, 0, 0))(params, batch.x, batch.y)
    squares = [jnp.sum(jnp.reshape(leaf, (len(leaf), -1)) ** 2, axis=1) for leaf in jax.tree.leaves(grads)]
    return jnp.sqrt(sum(squares))


WAYS: dict[str, Callable[..., Any]] = {
    "norms": per_example_norms,
    "vmap(grad) and norm": norms_by_vmap,
    "gradients": per_example_gradients,
    "statistics": gradient_statistics,
    "backward": mlpjax.backward,
}


def seconds(call: Callable[..., Any], args: tuple[Any, ...]) -> float:
    """The best time of a call."""
    best, end = np.inf, time.perf_counter() + SECONDS
    calls = 0
    while calls < 2 or time.perf_counter() < end:
        started = time.perf_counter()
        jax.block_until_ready(call(*args))
        best, calls = min(best, time.perf_counter() - started), calls + 1
    return best


def main() -> int:
    """Print and write the times; returns 1 when a claim is missed."""
    rng = np.random.default_rng(0)
    config = Config(sizes=SIZES)
    params, state = mlpjax.init(config, jax.random.key(0))
    x = jnp.asarray(rng.normal(size=(EXAMPLES, SIZES[0])), jnp.float32)
    args = (config, params, state, Batch(x, jnp.asarray(rng.integers(0, SIZES[-1], EXAMPLES))))
    ways = {name: jax.jit(function) for name, function in WAYS.items()}
    results = {name: jax.block_until_ready(call(*args)) for name, call in ways.items()}  # compiles, too
    expected = results["vmap(grad) and norm"]
    difference = float(jnp.max(jnp.abs(results["norms"] - expected) / expected))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for done in range(ROUNDS):
        for name, call in ways.items():
            times[name].append(seconds(call, args))
        print(f"\rround {done + 1} of {ROUNDS}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    medians = {name: statistics.median(found) for name, found in times.items()}
    ratios = {
        f"{a} : {b}": statistics.median(s / t for s, t in zip(times[a], times[b], strict=True)) for a, b in RATIOS
    }
    for name, value in medians.items():
        print(f"{name}: {value * 1e3:.3g} ms")
    for name, value in ratios.items():
        print(f"{name} = {value:.2f}")
    print(f"largest relative difference of a norm: {difference:.1e}")
    met = (
        ratios["vmap(grad) and norm : norms"] >= CLAIMS["vmap(grad) and norm : norms"]
        and ratios["norms : backward"] <= CLAIMS["norms : backward"]
        and difference <= CLAIMS["difference"]
    )
    result = {
        "claims": CLAIMS,
        "met": met,
        "sizes": SIZES,
        "examples": EXAMPLES,
        "rounds": ROUNDS,
        "seconds": medians,
        "ratios": ratios,
        "largest_relative_difference": difference,
        "machine": {
            "cpu_count": os.cpu_count(),
            "machine": platform.machine(),
            "device": jax.devices()[0].device_kind,
        },
        "versions": versions(),
    }
    target = Path(__file__).parent / "results" / "per_example.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
