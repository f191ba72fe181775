"""Does the audit cry wolf? 500 random networks whose gradients are right, kinks included, in float64 and float32.

Widths 1 … 9, up to 3 hidden layers, every activation and head, weights, batch-norm, dropout and penalties; a third of
them sit on kinks: units at exactly 0, all weights 0, inputs that are 0 or repeat. Others have tiny or large inputs
and batches of one. Claim: no alarm in either precision.

    uv run python experiments/false_alarms.py [--networks 500] [--processes 2]

Writes experiments/results/false_alarms.json, and exits with an error when there is a false alarm.
"""

import argparse
import collections
import itertools
import json
import multiprocessing
import os
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np

import mlpjax
from mlpjax.cases import Case, make_case, on_kink, random_network, random_sizes
from mlpjax.versions import versions

NETWORKS_OF_A_SHAPE = 100
KINDS = (
    "plain",
    "plain",
    "plain",
    "units at 0",
    "zero weights",
    "zero and repeated inputs",
    "scaled inputs",
    "one row",
)


def draw(seed: int) -> tuple[str, Case]:
    """A network and its batch, with what is special about it; the same seed gives the same one."""
    # many networks of one shape compile little; the rest is drawn anew for each
    sizes, m = random_sizes(np.random.default_rng(seed // NETWORKS_OF_A_SHAPE))
    rng = np.random.default_rng([1, seed])
    kind = KINDS[seed % len(KINDS)]
    config, weight, train = random_network(rng, sizes)
    if kind == "zero weights":
        config = mlpjax.Config.from_dict({**config.to_dict(), "init": "zeros", "bias": bool(rng.random() < 0.5)})
    m, weight = (1, "none") if kind == "one row" else (m, weight)
    case = make_case(config, weight, train, m, seed)
    x = np.array(case.batch.x)
    if kind == "units at 0":
        case = on_kink(case)
    if kind == "zero and repeated inputs":
        x[: m // 2] = 0
        x[m // 2 :] = x[-1]
        x[:, 0] = 1
    if kind == "scaled inputs":
        x *= 10 ** rng.uniform(-4, 2)
    return kind, case._replace(batch=case.batch._replace(x=x))


def check(case: Case, dtype: str) -> mlpjax.GradientReport:
    """Audit the hand-derived gradient of one network, as a user would."""
    f, grad_f = (partial(function, train=case.train) for function in (mlpjax.loss, mlpjax.backward))
    return mlpjax.check_gradients(
        f,
        grad_f,
        *case[:5],
        argnums=1,
        returns="value_and_grad",
        has_aux=True,
        kinks="autodiff",
        dtype=dtype,
        jit=False,
    )


def look(seeds: range) -> dict:
    """Check the networks of some seeds in both precisions."""
    kinds, verdicts = collections.Counter(), {dtype: collections.Counter() for dtype in ("float64", "float32")}
    alarms, elements = [], 0
    for number, seed in enumerate(seeds, start=1):
        kind, case = draw(seed)
        kinds[kind] += 1
        for dtype, seen in verdicts.items():
            report = check(case, dtype)
            seen.update(leaf.verdict for leaf in report.leaves)
            elements += sum(leaf.size for leaf in report.leaves)
            if not report.ok:
                alarms.append({"seed": seed, "kind": kind, "dtype": dtype, "config": case.config.to_dict()})
                print(f"false alarm: seed {seed}, {kind}, {case.config}\n{report}", flush=True)
        if number % 25 == 0:
            print(f"{number} of {len(seeds)} from seed {seeds[0]}", file=sys.stderr, flush=True)
    return {"kinds": kinds, "verdicts": verdicts, "alarms": alarms, "elements": elements}


def main() -> int:
    """Check every network, some in each process; returns 1 when a right gradient was called wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=500)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    started = time.perf_counter()
    cuts = [options.networks * i // options.processes for i in range(options.processes + 1)]
    parts = [range(*ends) for ends in itertools.pairwise(cuts)]
    # JAX has threads: a process of its own for each part, not a fork
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        found = pool.map(look, parts)
    alarms = [alarm for one in found for alarm in one["alarms"]]
    elements = sum(one["elements"] for one in found)
    result = {
        "networks": options.networks,
        "kinds": sum((one["kinds"] for one in found), collections.Counter()),
        "elements": elements,
        "leaf_verdicts": {
            dtype: sum((one["verdicts"][dtype] for one in found), collections.Counter())
            for dtype in ("float64", "float32")
        },
        "false_alarms": alarms,
        "seconds": round(time.perf_counter() - started, 1),
        "processes": options.processes,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
    }
    print(f"{options.networks} networks, {elements:,} elements, {len(alarms)} false alarms, {result['seconds']} s")
    target = Path(__file__).parent / "results" / "false_alarms.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(bool(alarms))


if __name__ == "__main__":
    sys.exit(main())
