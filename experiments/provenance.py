"""Fault provenance: planted numbers that are not finite, and whether each is named by epoch, step, layer and example.

Each case plants one NaN, ∞ or −∞ at a random place of a run of 20 steps: in the data (by an augmentation), in what the
run is given (parameters, statistics, moments), in what its optimiser makes, in an activation, its derivative or a rule
of the backward pass that fail at one number; or finite numbers that overflow in z, in batch-norm's variance, in a loss,
a penalty, a gradient, a sum of W and its update; or the logarithm of 0 in a loss of the user's own. Every other number
is finite, so that what must be named is known. With too large a rate it is found by a training written once more, in
NumPy. Claims: every case is named rightly, by epoch, step, quantity, layer, row, example, unit or place in the array,
and value; random networks that train without a fault train as they do unwatched; and without the option a run lowers
the text that it lowers in a process that has not imported the code.

    uv run python experiments/provenance.py
    uv run python experiments/provenance.py --cases 21    # one of each kind; writes nothing

Writes experiments/results/provenance.json, and exits with an error when a claim is missed.
"""

import dataclasses
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tyro
from provenance_cases import CASES, Case
from provenance_plants import BATCH_SIZE, EPOCHS, KEY, data_of, failing
from provenance_text import text_hash

import mlpjax
from mlpjax import Config, autodiff, backward, optim
from mlpjax.cases import make_case, random_network, random_sizes
from mlpjax.checks import check_batch
from mlpjax.chunks import Run
from mlpjax.loop import Loop
from mlpjax.provenance import FaultyStep, first_fault, watched, watched_optimizer
from mlpjax.versions import versions

CLAIMS = {"named_rightly": "every case", "false_alarms": 0, "same_program_text": True}
TEXT = Path(__file__).parent / "provenance_text.py"
TARGET = Path(__file__).parent / "results" / "provenance.json"
HEALTHY = 20
"""How many random networks train without a fault."""
CHUNK = 3
"""Steps of a chunk: where a chunk begins, the fault may lie in the one before."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What is run."""

    cases: int = 100
    """How many cases; with fewer than 100 nothing is written."""
    seed: int = 0
    """Seed of the random places."""


def faulty_step(case: Case) -> FaultyStep | None:
    """Train as `mlpjax.fit` does, in chunks of few steps, and find the fault."""
    data = check_batch(case.config, data_of(case.config), "data")
    watching = watched_optimizer(case.optimizer), watched(case.grad_fn)
    run = Run(case.config, *watching, data, BATCH_SIZE, EPOCHS, KEY, case.augment, together=True)
    run.chunk = CHUNK
    loop = Loop(run, case.start, None, None, "loss", None)
    loop.train(threading.Event())
    return first_fault(loop, case.optimizer, case.grad_fn)


def wrong(case: Case, found: FaultyStep | None) -> list[str]:
    """What of the fault is not named as it should be."""
    if found is None or found.fault is None:
        return ["no fault was found"]
    fault = found.fault._asdict()
    return [
        f"{name} is {fault[name]}: expected {value}"
        for name, value in case.expected.items()
        if not same(fault[name], value)
    ]


def same(a: Any, b: Any) -> bool:
    """Equality, in which NaN is NaN."""
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))


def planted(options: Options) -> dict[str, Any]:
    """Take the cases in turn, and judge what is named."""
    rng, kinds = np.random.default_rng(options.seed), list(CASES)
    named = dict.fromkeys(kinds, 0)
    sentences: dict[str, str] = {}
    missed = []
    with failing():
        for number in range(options.cases):
            kind = kinds[number % len(kinds)]
            case = CASES[kind](rng)
            found = faulty_step(case)
            sentences.setdefault(kind, str(found and found.fault))
            if mistakes := wrong(case, found):
                missed.append({"case": number, "kind": kind, "found": str(found and found.fault), "wrong": mistakes})
            named[kind] += not mistakes
    return {
        "cases": options.cases,
        "named_rightly": sum(named.values()),
        "by_kind": named,
        "missed": missed,
        "sentences": sentences,
    }


def healthy(number: int) -> bool:
    """Whether a random network trains as it does unwatched."""
    rng = np.random.default_rng(number)
    sizes, m = random_sizes(rng)
    config, weight, _ = random_network(rng, sizes)
    if "binary_step" in config.activations:
        config = Config.from_dict({**config.to_dict(), "activation": "tanh"})
    case = make_case(config, weight, m=m, seed=number)
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 4, "key": KEY, "params": case.params, "state": case.state}
    optimizer, grad_fn = (optax.adam(0.01), optim.nesterov(0.01))[number % 2], (backward, autodiff)[number // 2 % 2]
    plain = mlpjax.fit(config, optimizer, case.batch, grad_fn=grad_fn, **settings)
    watching = mlpjax.fit(config, watched_optimizer(optimizer), case.batch, grad_fn=watched(grad_fn), **settings)
    pairs = zip(jax.tree.leaves(plain[:3]), jax.tree.leaves(watching[:3]), strict=True)
    same_end = all(np.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs)
    return plain.stop_reason == watching.stop_reason == "finished" and same_end


def cost() -> dict[str, float]:
    """How much longer the training of the digits takes while it is watched, beside the default network."""
    digits = mlpjax.load_dataset("digits")
    data, config = mlpjax.Batch(digits.x / 16, digits.y), Config(sizes=(64, 256, 128, 10), dropout=0.2)
    optimizer = optim.adam(1e-3)
    ways = {"off": (optimizer, backward), "on": (watched_optimizer(optimizer), watched(backward))}
    settings: dict[str, Any] = {"epochs": 10, "batch_size": 32, "key": KEY}
    results: dict[str, list[mlpjax.FitResult]] = {"off": [], "on": []}
    for _ in range(5):
        for way, (rule, grad_fn) in ways.items():
            results[way].append(mlpjax.fit(config, rule, data, grad_fn=grad_fn, **settings))
    ratios = [on.seconds_train / off.seconds_train for off, on in zip(*results.values(), strict=True)]
    compiling = {f"seconds_compile_{way}": results[way][0].seconds_compile for way in ways}
    return {"times_as_long": statistics.median(ratios), **compiling}


def main(options: Options) -> int:
    """Print and write what was named; returns 1 when a claim is missed."""
    started = time.perf_counter()
    text = subprocess.run([sys.executable, TEXT], capture_output=True, text=True, check=True).stdout.strip()
    found = planted(options)
    print(f"{found['named_rightly']} of {found['cases']} named rightly")
    for kind, sentence in found["sentences"].items():
        print(f"  {kind}: {sentence}")
    for missed in found["missed"]:
        print(f"  MISSED {missed}")
    alarms = [number for number in range(HEALTHY) if not healthy(number)]
    print(f"{len(alarms)} of {HEALTHY} healthy runs not as they are unwatched")
    same_text = text == text_hash()
    print(f"the program without the option is {'the same text' if same_text else 'ANOTHER TEXT'}")
    result = {
        "claims": CLAIMS,
        **found,
        "healthy_runs": HEALTHY,
        "false_alarms": alarms,
        "same_program_text": same_text,
        "program_text_sha256": text,
        "cost": cost(),
        "seconds": time.perf_counter() - started,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": versions(),
    }
    print(f"watched, training takes {result['cost']['times_as_long']:.2f} times as long")
    result["met"] = found["named_rightly"] == options.cases and not alarms and same_text
    if options.cases >= 100:
        TARGET.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(not result["met"])


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
