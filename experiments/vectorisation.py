"""The three versions of the network with one hidden layer: how long a forward and a backward pass take, against m.

Version 1 goes unit by unit in Python; version 2 calls a compiled function for every example; version 3 calls one for
all of them. Beside them version 2 with its loop over the examples compiled too. 784-64-10 tanh units, σ and
cross-entropy, float32. A time is the best of as many calls as fit into a part of a second; in every round each way has
its turn, and a ratio is the median over the rounds of ratios within one round. Claim: for m = 1000, version 1 takes
longer than version 2, and that at least ten times as long as version 3.

    uv run python experiments/vectorisation.py

Writes experiments/results/vectorisation.json, and exits with an error when the claim is missed.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import mlpjax
from mlpjax import Config
from mlpjax.one_hidden import VERSIONS, Gradients, backward_example, forward_example
from mlpjax.versions import versions

CLAIM = 10
"""How many times as long as version 3 the loop of version 2 takes."""
SIZES = (784, 64, 10)
EXAMPLES = (1, 10, 100, 1000)
RATIOS = [("version 1", "version 2"), ("version 2", "version 3"), ("version 2, loop compiled", "version 3")]
ROUNDS = 7
SECONDS = 0.2
"""How long the calls of one time last, at least two of them."""


def both_passes(version: int, params: Any, x: Any, y: Any) -> Gradients:
    """Forward and backward."""
    forward, backward = VERSIONS[version]
    return backward(params, x, y, forward(params, x, "tanh"), "tanh")


@jax.jit
def add_example(total: tuple[Any, ...], params: Any, x: Any, y: Any) -> tuple[Any, ...]:
    """Forward and backward of version 2 on one example, its dW and db added to a total."""
    grads = backward_example(params, x, y, forward_example(params, x))
    return jax.tree.map(lambda a, b: a + b, total, (grads.dW1, grads.db1, grads.dW2, grads.db2))


def looped(params: Any, x: Any, y: Any) -> tuple[Any, ...]:
    """Version 2 as a Python loop over i; the mean of dW and db at the end."""
    total = tuple(np.zeros_like(value) for layer in params for value in (layer.W, layer.b))
    for i in range(len(x)):
        total = add_example(total, params, x[i : i + 1], y[i : i + 1])
    return jax.tree.map(lambda a: a / len(x), total)


def seconds(call: Callable[[], Any]) -> float:
    """The best time of a call."""
    best, end = np.inf, time.perf_counter() + SECONDS
    calls = 0
    while calls < 2 or time.perf_counter() < end:
        started = time.perf_counter()
        jax.block_until_ready(call())
        best, calls = min(best, time.perf_counter() - started), calls + 1
    return best


def measure(m: int) -> dict[str, Any]:
    """Time all ways on m examples."""
    rng = np.random.default_rng(0)
    params, _ = mlpjax.init(Config(sizes=SIZES, activation="tanh", head="multilabel"), jax.random.key(0))
    host = jax.tree.map(np.asarray, params)
    x = rng.normal(size=(m, SIZES[0])).astype(np.float32)
    y = rng.integers(0, 2, (m, SIZES[-1])).astype(np.float32)
    x_device, y_device = jax.device_put((x, y))
    ways: dict[str, Callable[[], Any]] = {
        "version 1": partial(both_passes, 1, host, x, y),
        "version 2": partial(looped, params, x, y),
        "version 2, loop compiled": partial(jax.jit(partial(both_passes, 2)), params, x_device, y_device),
        "version 3": partial(jax.jit(partial(both_passes, 3)), params, x_device, y_device),
    }
    for call in ways.values():  # compile, and warm up
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in ways}
    for done in range(ROUNDS):
        for name, call in ways.items():
            times[name].append(seconds(call))
        print(f"\rm = {m}: round {done + 1} of {ROUNDS}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        "m": m,
        "seconds": {name: statistics.median(found) for name, found in times.items()},
        "ratios": {
            f"{slow} : {fast}": statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))
            for slow, fast in RATIOS
        },
    }


def main() -> int:
    """Print and write the times; returns 1 when the claim is missed."""
    rows = [measure(m) for m in EXAMPLES]
    for row in rows:
        told = ", ".join(f"{name} {value * 1e3:.3g} ms" for name, value in row["seconds"].items())
        ratios = ", ".join(f"{name} = {value:.1f}" for name, value in row["ratios"].items())
        print(f"m = {row['m']}: {told}\n    {ratios}")
    last = rows[-1]["ratios"]
    met = last["version 1 : version 2"] > 1 and last["version 2 : version 3"] >= CLAIM
    result = {
        "claim": CLAIM,
        "met": met,
        "sizes": SIZES,
        "rounds": ROUNDS,
        "rows": rows,
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "versions": versions(),
    }
    target = Path(__file__).parent / "results" / "vectorisation.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
