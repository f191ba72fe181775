"""The lecture's advice, measured: what it says about optimisers, initialisation, regularisation and normalisation.

A claim is one or more comparisons, paired over seeds: what the lecture advises against something else. Both sides have
the best of a grid of learning rates, or of strengths chosen on validation data. A comparison is confirmed when the
advised side is better in at least 80 % of the seeds; a claim is confirmed when all of its comparisons are, not
confirmed when none is, and depends otherwise. All seeds and settings of a comparison train as one population. The data
are the digits of 8×8 pixels, and data made by formula.

    uv run python experiments/advice.py [CLAIM …] [--seeds N]

Writes experiments/results/advice.json, where claims that are named replace their own part, and says which verdicts
differ from those that it held. A report, not a target: it exits with 0 when all ran. With --seeds nothing is written.
"""

import argparse
import importlib
import json
import time
from pathlib import Path
from typing import Any

from advice_report import CLAIMS, VERDICTS, lines, record

from mlpjax.versions import versions

TARGET = Path(__file__).parent / "results" / "advice.json"
for part in ("optimisers", "adaptive", "initialisation", "regularisation", "dropout", "normalisation"):
    importlib.import_module(f"advice_{part}")


def measure(name: str, seeds: int | None = None) -> dict[str, Any]:
    """Measure one claim, with its own number of seeds unless another is given."""
    seeds = seeds or CLAIMS[name].seeds
    start = time.perf_counter()
    cases = CLAIMS[name].run(seeds)
    return record(name, cases, seeds, time.perf_counter() - start)


def write(claims: dict[str, Any]) -> None:
    """Write what was found, in the order of the claims."""
    ordered = {name: claims[name] for name in CLAIMS if name in claims}
    text = json.dumps({"claims": ordered, "versions": versions()}, indent=1, ensure_ascii=False, allow_nan=False)
    TARGET.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Measure the claims that are named, or all; print them, write them, and compare with what was written before."""
    parser = argparse.ArgumentParser(description="The lecture's advice, measured.")
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=", ".join(CLAIMS))
    parser.add_argument("--seeds", type=int, help="fewer or more seeds than each claim's own; writes nothing")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.claims if name not in CLAIMS]
    if unknown:
        parser.error(f"no claim is called {', '.join(unknown)}: expected some of {', '.join(CLAIMS)}")
    before = json.loads(TARGET.read_text(encoding="utf-8"))["claims"] if TARGET.exists() else {}
    found: dict[str, Any] = {}
    for name in arguments.claims or CLAIMS:
        found[name] = measure(name, arguments.seeds)
        print(lines(name, found[name]), flush=True)
        if arguments.seeds is None:
            write({**before, **found})
    for kind in VERDICTS:
        names = [name for name, claim in found.items() if claim["verdict"] == kind]
        print(f"{kind}: {len(names)}  {', '.join(names)}")
    for name, claim in found.items():
        if name in before and before[name]["verdict"] != claim["verdict"]:
            print(f"{name}: {claim['verdict']}, but {before[name]['verdict']} in {TARGET.name} before")
    print(f"{len(found)} claims in {sum(claim['seconds'] for claim in found.values()):.0f} s")


if __name__ == "__main__":
    main()
