"""Pearlmutter's R-operator by hand: how exact H v and G v are, and how long they take against one `backward`.

Exact: in float64, every activation with every head, with and without batch-norm, with every penalty, for two hidden
layers, weights of which some are 0, and a random v. H v against ``jvp`` of ``grad`` of `mlpjax.loss`; G v against
``jvp``, the Hessian of the losses and the penalty in (z, W), and ``vjp``. The error of a leaf is max|hand − autodiff|
over max|autodiff|, or over that of the whole tree where the leaf is 0 but for rounding. Claim: at most 1e-10.

Time: float32, each call compiled on its own, from the parameters to the product. In every round each of the three has
its turn, and a ratio is the median over the rounds of ratios within one round. Claim: one product takes at most 2.5
times as long as one `backward`. In matrix products of L equal layers H v takes 8L − 5 for the 3L − 1 of `backward`,
G v 5L − 2; of the first layer, mostly the largest, 3 for 2.

    uv run python experiments/r_operator.py

Writes experiments/results/r_operator.json, and exits with an error when a claim is missed.
"""

import itertools
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
from mlpjax import ACTIVATIONS, HEADS, Batch, Config
from mlpjax.cases import Case, make_case
from mlpjax.passes import run_pass
from mlpjax.r_operator import gnvp, hvp
from mlpjax.versions import versions

CLAIMS = {"relative_error": 1e-10, "times_backward": 2.5}
PENALTIES: dict[str, dict[str, float]] = {
    "none": {},
    "l1": {"l1": 0.02},
    "l2": {"l2": 0.3},
    "elastic net": {"l1": 0.02, "l2": 0.3},
}
NETWORKS: dict[str, tuple[Config, int]] = {
    "784-256-10": (Config(), 128),
    "784-800-10, tanh": (Config(sizes=(784, 800, 10), activation="tanh"), 100),
    "784-256-10, batch-norm": (Config(batch_norm=True), 128),
    "784-256-256-256-10": (Config(sizes=(784, 256, 256, 256, 10)), 128),
    "784-512-512-512-512-10, gelu": (Config(sizes=(784, 512, 512, 512, 512, 10), activation="gelu"), 128),
    "64-100-10, sigmoid": (Config(sizes=(64, 100, 10), activation="sigmoid"), 100),
}
ROUNDS = 15
SECONDS = 0.1
"""How long the calls of one time last, at least two of them."""


def random_like(params: Any, seed: int) -> Any:
    """Draw a direction."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), params)


def error(hand: Any, auto: Any) -> float:
    """The largest error over the leaves, relative to each leaf's scale."""
    largest = jax.tree.map(lambda a: float(np.abs(a).max()), auto)
    whole = max(jax.tree.leaves(largest))
    scales = jax.tree.map(lambda own: own if own > 1e-8 * whole else whole, largest)
    errors = jax.tree.map(lambda h, a, s: float(np.abs(h - a).max()) / s if s else float(np.abs(h).max()), hand, auto, scales)  # fmt: skip  # noqa: E501
    return max(jax.tree.leaves(errors))


def by_autodiff(case: Case, v: Any) -> tuple[Any, Any]:
    """H v and G v of JAX; nothing is compiled as a whole, so that all networks share the operations."""
    config, this = case.config, case.call(lambda *args, train: run_pass(*args[:4], train, args[4]))

    def gradient(params: Any) -> Any:
        return jax.grad(lambda params: case.call(mlpjax.loss, params=params)[0])(params)

    def linear_part(params: Any) -> Any:
        x, weight = case.batch.x, case.batch.weight
        z, _ = mlpjax.forward(config, params, case.state, x, train=case.train, key=case.key, weight=weight)
        return z, [layer.W for layer in params]

    def convex_part(parts: Any) -> Any:
        z, matrices = parts
        penalty = sum((config.l2 or 0.0) / 2 * jnp.sum(W * W) for W in matrices)
        return jnp.sum(this.p * HEADS[config.head].loss(z, this.y)) + penalty

    H_v = jax.jvp(gradient, (case.params,), (v,))[1]
    parts, moved = jax.jvp(linear_part, (case.params,), (v,))
    curved = jax.jvp(jax.grad(convex_part), (parts,), (moved,))[1]
    return H_v, jax.vjp(linear_part, case.params)[1](curved)[0]


def exactness() -> dict[str, Any]:
    """The errors over the whole product of options."""
    found: dict[str, dict[str, float]] = {"hvp": {}, "gnvp": {}}
    for activation, head, batch_norm, penalty in itertools.product(ACTIVATIONS, HEADS, (False, True), PENALTIES):
        name = f"{activation} × {head} × {'batch-norm' if batch_norm else 'plain'} × {penalty}"
        sizes = (3, 4, 3, 1 if head == "binary" else 2)
        config = Config(sizes=sizes, activation=activation, head=head, batch_norm=batch_norm, **PENALTIES[penalty])
        case = make_case(config, "zeros")
        v = random_like(case.params, seed=5)
        for which, function, auto in zip(found, (hvp, gnvp), by_autodiff(case, v), strict=True):
            hand = function(config, case.params, case.state, case.batch, v, case.key, train=case.train)
            found[which][name] = error(hand, auto)
        print(f"\r{len(found['hvp'])} networks", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        "networks": len(found["hvp"]),
        **{
            which: {"worst": max(errors.values()), "where": max(errors, key=errors.__getitem__)}
            for which, errors in found.items()
        },
    }


def seconds(call: Callable[[], Any]) -> float:
    """The best time of a call."""
    best, calls, end = np.inf, 0, time.perf_counter() + SECONDS
    while calls < 2 or time.perf_counter() < end:
        started = time.perf_counter()
        jax.block_until_ready(call())
        best, calls = min(best, time.perf_counter() - started), calls + 1
    return best


def timing(name: str) -> dict[str, Any]:
    """Time `backward`, H v and G v on one network."""
    config, m = NETWORKS[name]
    params, state = mlpjax.init(config, jax.random.key(0))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(m, config.sizes[0])), jnp.float32)
    batch = Batch(x, jnp.asarray(rng.integers(0, config.sizes[-1], m), jnp.int32))
    v = random_like(params, seed=1)
    backward, H_v, G_v = jax.jit(mlpjax.backward), jax.jit(hvp), jax.jit(gnvp)
    ways: dict[str, Callable[[], Any]] = {
        "backward": lambda: backward(config, params, state, batch),
        "hvp": lambda: H_v(config, params, state, batch, v),
        "gnvp": lambda: G_v(config, params, state, batch, v),
    }
    for call in ways.values():  # compile, and warm up
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, call in ways.items():
            times[way].append(seconds(call))
    ratios = {
        way: statistics.median(a / b for a, b in zip(times[way], times["backward"], strict=True))
        for way in ("hvp", "gnvp")
    }
    told = ", ".join(f"{way} {ratio:.2f}" for way, ratio in ratios.items())
    print(f"{name}, batch {m}: one backward {statistics.median(times['backward']) * 1e3:.3g} ms; times that: {told}")
    medians = {way: statistics.median(found) for way, found in times.items()}
    return {"network": name, "batch": m, "seconds": medians, "times_backward": ratios}


def main() -> int:
    """Print and write errors and times; returns 1 when a claim is missed."""
    with jax.enable_x64(True):
        exact = exactness()
    for which in ("hvp", "gnvp"):
        worst, where = exact[which]["worst"], exact[which]["where"]
        print(f"{which}: worst error {worst:.1e} ({where}) of {exact['networks']} networks")
    times = [timing(name) for name in NETWORKS]
    slowest = max(max(row["times_backward"].values()) for row in times)
    worst = max(exact[which]["worst"] for which in ("hvp", "gnvp"))
    met = worst <= CLAIMS["relative_error"] and slowest <= CLAIMS["times_backward"]
    result = {
        "claims": CLAIMS,
        "met": met,
        "exactness": exact,
        "rounds": ROUNDS,
        "times": times,
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "versions": versions(),
    }
    target = Path(__file__).parent / "results" / "r_operator.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
