"""How the experiment on speed measures: all have their turn in every round, and a ratio is one within a round."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speed_peers import Contender

STAT = Path("/proc/stat")
DISTURBED = 0.1
"""A round is repeated when other processes take more than this share of the processors."""

PAUSE = 0.5
"""Seconds before each turn: threads of the library before it look for more work for a fifth of a second."""

Round = dict[str, dict[str, float]]


def run(contender: Contender, seed: int, *, first: bool = False) -> dict[str, float]:
    """Train once; ``seconds`` of training, ``whole`` of the call, and ``compile`` where the contender tells it."""
    orders = contender.job.first_orders() if first else contender.job.orders(seed)
    contender.start(seed)
    time.sleep(PAUSE)
    started = time.perf_counter()
    own = contender.train(orders)
    whole = time.perf_counter() - started
    return {"seconds": whole, "whole": whole} | (own or {})


def one_round(contenders: Mapping[str, Contender], done: int, title: str) -> tuple[float, Round]:
    """Let each train once; returns the share of the processors that other processes took, and what was measured."""
    (everyone, ours), started = processor_seconds(), time.perf_counter()
    found: Round = {}
    for name in turns(list(contenders), done):
        _say(f"{title}: round {done + 1}, {name}")
        found[name] = run(contenders[name], done)
    now, now_ours = processor_seconds()
    others = (now - everyone) - (now_ours - ours)
    return max(0.0, others / (time.perf_counter() - started) / (os.cpu_count() or 1)), found


def processor_seconds() -> tuple[float, float]:
    """What all processes have used since the machine started, where Linux tells it, and what this one has."""
    ours = time.process_time()
    if not STAT.exists():
        return ours, ours
    # user, nice, system, idle, iowait, irq, softirq, steal
    ticks = [int(value) for value in STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK"), ours


def turns(names: list[str], done: int) -> list[str]:
    """The order of a round: each begins one, and is not always followed by the same one.

    >>> [turns(["a", "b", "c"], done) for done in range(3)]
    [['a', 'b', 'c'], ['b', 'a', 'c'], ['c', 'a', 'b']]
    """
    at = done % len(names)
    first, *others = names[at:] + names[:at]
    return [first, *(others[::-1] if done % 2 else others)]


def interleave(
    contenders: Mapping[str, Contender], rounds: int, title: str, *, tries: int = 3
) -> dict[str, dict[str, Any]]:
    """Time all contenders in every round: ``median`` is over the rounds, ``loss`` that of the first.

    Of a round that is disturbed and repeated, ``tries`` times in all, the least disturbed one counts.

    ``compile`` is what the contender says, or what a training of a step or two took, before all others, beyond such
    steps later. ``others`` has, for each round, the share of the processors that other processes took.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, contender in contenders.items():
        _say(f"{title}: first steps of {name}")
        first = None if contender.tells_compile else run(contender, 0, first=True)["whole"]
        found[name] = {"seconds": [], "whole": [], "others": [], "compile": first}
    for done in range(rounds):
        taken = [one_round(contenders, done, title)]
        for name, row in found.items():
            # of the first try: what is compiled is not compiled again
            row["compile"] = row["compile"] if done else taken[0][1][name].get("compile", row["compile"])
        while taken[-1][0] > DISTURBED and len(taken) < tries:
            taken.append(one_round(contenders, done, title))
        others, measured = min(taken, key=lambda this: this[0])
        for name, row in found.items():
            for key in ("seconds", "whole"):
                row[key].append(measured[name][key])
            row["others"].append(others)
            if not done:
                params = contenders[name].params()
                row["loss"] = None if params is None else contenders[name].job.loss(params)
    _say("")
    for name, row in found.items():
        row["median"] = statistics.median(row["seconds"])
        if not contenders[name].tells_compile:
            job = contenders[name].job
            steps = -(-job.first_orders().rows // job.workload.batch_size)
            row["compile"] = max(0.0, row["compile"] - row["median"] * steps / job.steps)
    return found


def ratio(rows: Mapping[str, Mapping[str, Any]], slow: str, fast: str) -> float:
    """The median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(rows[slow]["seconds"], rows[fast]["seconds"], strict=True))


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
