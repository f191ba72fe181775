"""Levenberg and Marquardt's method against Adam: learning a teacher network exactly.

The teacher is a 5-8-1 tanh network with standard normal weights and biases, of key 0; it labels 200 standard normal
inputs, without noise. The student has 16 hidden units, 113 parameters for 200 examples, and starts from `mlpjax.init`,
keys 1 to 10; all in float64. Claim: `mlpjax.gauss_newton.levenberg_marquardt`, with its default damping, reaches a mean
loss (½ squared error) of 1e-12 from at least 8 of the 10 starts.

Beside it, from the same starts, Adam: 12 learning rates from 1e-4 to 0.3, constant and with a cosine schedule, with 100
times as many forward–backward equivalents as Levenberg and Marquardt's method took on average; the rate and schedule
with the lowest median loss are shown, the lowest loss on the way counting. One equivalent is one forward and one
backward pass over the 200 examples. What the solver's algebra takes besides is told too, as equivalents of as many
operations.

A student as narrow as the teacher meets local minima: ``by_teacher`` has the successes of 10 starts for ten teachers,
keys 0 to 9, for both widths.

    uv run python experiments/teacher.py

Writes experiments/results/teacher.json, and exits with an error when the claim is missed.
"""

import json
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import mlpjax
from mlpjax.gauss_newton import levenberg_marquardt
from mlpjax.optim import adam
from mlpjax.versions import versions

CLAIM = {"mean_loss": 1e-12, "starts": 8}
EXAMPLES, FRESH, STARTS, TEACHERS, BUDGET, MAX_STEPS = 200, 1000, 10, 10, 100, 300
RATES = np.geomspace(1e-4, 0.3, 12)
TEACHER, STUDENT = (mlpjax.Config(sizes=(5, n, 1), activation="tanh", head="regression") for n in (8, 16))


def examples(key: jax.Array, m: int) -> mlpjax.Batch:
    """The teacher of a key, and m inputs with its outputs; the first 200 are the same for every m."""
    weights, state = mlpjax.init(TEACHER, key)
    flat, unravel = ravel_pytree(weights)
    teacher = unravel(jax.random.normal(jax.random.fold_in(key, 1), flat.shape))
    x = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, 2), i), (5,)))(jnp.arange(m))
    return mlpjax.Batch(x, mlpjax.predict(TEACHER, teacher, state, x))


def starts(config: mlpjax.Config) -> mlpjax.parameters.Params:
    """The start values of keys 1 to 10."""
    return jax.vmap(lambda seed: mlpjax.init(config, jax.random.key(seed))[0])(jnp.arange(1, STARTS + 1))


@partial(jax.jit, static_argnames="config")
def solve(config: mlpjax.Config, batch: mlpjax.Batch) -> mlpjax.solver_loop.Solution:
    """Levenberg and Marquardt's method from all starts."""

    def one(params: mlpjax.parameters.Params) -> mlpjax.solver_loop.Solution:
        return levenberg_marquardt(config, params, (), batch, tol=0.0, loss_tol=CLAIM["mean_loss"], max_steps=MAX_STEPS)

    return jax.vmap(one)(starts(config))


@partial(jax.jit, static_argnames=("steps", "cosine"))
def descend(batch: mlpjax.Batch, rates: jax.Array, *, steps: int, cosine: bool) -> jax.Array:
    """Adam's lowest loss on the way, for each rate and start ``(12, 10)``."""

    def one(rate: jax.Array, params: mlpjax.parameters.Params) -> jax.Array:
        shape = optax.cosine_decay_schedule(1.0, steps)
        rule = adam(lambda t: rate * shape(t)) if cosine else adam(lambda t: rate)

        def step(carry: tuple, _: None) -> tuple:
            params, memory, lowest = carry
            (J, _), grads = mlpjax.backward(STUDENT, params, (), batch)
            return (*mlpjax.apply_update(rule, grads, memory, params), jnp.minimum(lowest, J)), None

        carry = (params, rule.init(params), jnp.array(jnp.inf))
        return jax.lax.scan(step, carry, length=steps)[0][2]

    return jax.vmap(lambda rate: jax.vmap(partial(one, rate))(starts(STUDENT)))(rates)


def final(solution: mlpjax.solver_loop.Solution) -> np.ndarray:
    """J at the end of each start."""
    return np.take_along_axis(np.asarray(solution.costs), np.asarray(solution.steps)[:, None], axis=1)[:, 0]


def main() -> int:
    """Print and write the numbers; returns 1 when the claim is missed."""
    batch = examples(jax.random.key(0), EXAMPLES)
    started = time.perf_counter()
    solution = jax.block_until_ready(solve(STUDENT, batch))
    seconds = time.perf_counter() - started
    losses, work, steps = final(solution), np.asarray(solution.work).sum(axis=1), np.asarray(solution.steps)
    fresh = jax.tree.map(lambda leaf: leaf[EXAMPLES:], examples(jax.random.key(0), EXAMPLES + FRESH))
    fresh_losses = jax.vmap(lambda params: mlpjax.loss(STUDENT, params, (), fresh)[0])(solution.params)
    P, products = sum(leaf[0].size for leaf in jax.tree.leaves(solution.params)), 5 * 16 + 16
    algebra = (2 * EXAMPLES * P**2 + P**3 / 3) / (6 * EXAMPLES * products)
    reached = int(np.sum(losses <= CLAIM["mean_loss"]))
    print(
        f"Levenberg–Marquardt: {reached} of {STARTS} starts; losses {np.sort(losses)}; {seconds:.1f} s with compiling"
    )
    print(f"  {work.mean():.0f} equivalents on average (steps {steps}), and {algebra:.0f} in algebra per step")

    budget, started = round(BUDGET * work.mean()), time.perf_counter()
    found = {
        name: np.asarray(descend(batch, jnp.asarray(RATES), steps=budget, cosine=name == "cosine"))
        for name in ("constant", "cosine")
    }
    adam_seconds = time.perf_counter() - started
    schedule = min(found, key=lambda name: np.min(np.median(found[name], axis=1)))
    best = int(np.argmin(np.median(found[schedule], axis=1)))
    print(f"Adam, {budget} steps, {schedule}, rate {RATES[best]:.2g}: losses {np.sort(found[schedule][best])}")

    by_teacher = {
        f"5-{config.sizes[1]}-1": [
            int(np.sum(final(solve(config, examples(jax.random.key(t), EXAMPLES))) <= CLAIM["mean_loss"]))
            for t in range(TEACHERS)
        ]
        for config in (TEACHER, STUDENT)
    }
    print(f"successes of {STARTS} starts, by teacher: {by_teacher}")
    result = {
        "claim": CLAIM,
        "student": "5-16-1",
        "levenberg_marquardt": {
            "reached": reached,
            "losses": losses.tolist(),
            "losses_on_fresh_inputs": np.asarray(fresh_losses).tolist(),
            "reasons": solution.reason.tolist(),
            "steps": steps.tolist(),
            "equivalents": work.tolist(),
            "algebra_in_equivalents_per_step": algebra,
            "seconds_with_compiling": seconds,
        },
        "adam": {
            "equivalents": budget,
            "rates": RATES.tolist(),
            "median_losses": {name: np.median(rows, axis=1).tolist() for name, rows in found.items()},
            "best": {"schedule": schedule, "rate": RATES[best], "losses": found[schedule][best].tolist()},
            "seconds_with_compiling": adam_seconds,
        },
        "by_teacher": by_teacher,
        "machine": {"cpu_count": os.cpu_count(), "machine": platform.machine()},
        "versions": versions(),
    }
    target = Path(__file__).parent / "results" / "teacher.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(reached < CLAIM["starts"])


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    sys.exit(main())
