"""Test accuracy and run time of `mlpjax train` with its default options, over seeds 0 to 4.

Each run is the installed command in a process of its own, timed from its start to its end. Claims: a median
test accuracy of at least 0.97 on digits, and of at least 0.98 on MNIST within 60 seconds a run.

    uv run python experiments/accuracy.py                          # digits
    uv run python experiments/accuracy.py mnist --data-dir DIR     # MNIST, --hidden 256 --epochs 10

Writes experiments/results/accuracy_<data>.json, and exits with an error when a claim is missed.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLAIMS = {
    "digits": {"options": [], "test_accuracy": 0.97, "seconds": None},
    "mnist": {"options": ["--hidden", "256", "--epochs", "10"], "test_accuracy": 0.98, "seconds": 60},
}
SEEDS = range(5)


def run(data: str, options: list[str], seed: int, folder: Path) -> dict:
    """Train once in a new process; returns its report with the wall time of the process."""
    report = folder / f"{data}-{seed}.json"
    command = [sys.executable, "-m", "mlpjax", "train", "--data", data, *options, "--seed", str(seed)]
    started = time.perf_counter()
    subprocess.run([*command, "--json", str(report)], check=True, stdout=subprocess.DEVNULL)
    return {**json.loads(report.read_text()), "seconds_process": time.perf_counter() - started}


def main() -> int:
    """Run the seeds, print and write the numbers; returns 1 when a claim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", choices=CLAIMS, default="digits")
    parser.add_argument("--data-dir", help="folder of the MNIST files")
    arguments = parser.parse_args()
    claim = CLAIMS[arguments.data]
    options = [*claim["options"], *(["--data-dir", arguments.data_dir] if arguments.data_dir else [])]

    with tempfile.TemporaryDirectory() as folder:
        reports = [run(arguments.data, options, seed, Path(folder)) for seed in SEEDS]
    seconds = ("seconds_compile", "seconds_train", "seconds_total", "seconds_process")
    keep = ("seed", "test_accuracy", "test_loss", *seconds)
    result = {
        "claim": {name: claim[name] for name in ("test_accuracy", "seconds")},
        "options": ["train", "--data", arguments.data, *claim["options"]],
        "median_test_accuracy": statistics.median(report["test_accuracy"] for report in reports),
        "slowest_process_seconds": max(report["seconds_process"] for report in reports),
        "runs": [{name: report[name] for name in keep} for report in reports],
        "machine": {"cpu_count": os.cpu_count(), "machine": platform.machine(), "device": reports[0]["device"]},
        "versions": reports[0]["versions"],
    }
    target = Path(__file__).parent / "results" / f"accuracy_{arguments.data}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    for report in result["runs"]:
        print(f"seed {report['seed']}: {report['test_accuracy']:.4f}, {report['seconds_process']:.1f} s")
    print(f"median {result['median_test_accuracy']:.4f}, claim {claim['test_accuracy']}")
    late = claim["seconds"] is not None and result["slowest_process_seconds"] > claim["seconds"]
    return int(late or result["median_test_accuracy"] < claim["test_accuracy"])


if __name__ == "__main__":
    sys.exit(main())
