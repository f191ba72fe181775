"""Training from files against training from memory: MNIST, replicated to 10 GB.

Both train a 784-128-10 network with Adam and batches of 128 on about as many examples, in turns in one process: from
memory on 60,000 images for some epochs, from the file for the first tenth of an epoch, which is another tenth in every
round. The file is in the system's cache ("warm"). Claims: the median over the rounds of the ratio of their rates is at
least 0.9, and the process never has 2 GB of anonymous memory (``RssAnon``, looked at every 20 ms) while it trains from
the file. Then a few rounds more, before each of which the file is dropped from the cache, tell the rate from the
storage itself ("cold"). ``read_from_storage`` says what was read past the cache.

    uv run python experiments/from_disk.py --data-dir DIR [--folder DIR] [--gigabytes 10] [--rounds 20] [--keep]

The file is written into a new folder in ``--folder``, by default the system's for temporary files, and deleted at the
end unless ``--keep`` is given. Fewer gigabytes make a rehearsal. Linux only. Writes experiments/results/from_disk.json
when it is no rehearsal, and exits with an error when a claim is missed.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np

import mlpjax
from mlpjax.optim import adam
from mlpjax.versions import versions

CLAIM = {"ratio": 0.9, "anonymous_bytes": 2e9}
GIGABYTES, PART, COLD_ROUNDS = 10, 0.1, 5
CONFIG, OPTIMIZER, BATCH_SIZE = mlpjax.Config(sizes=(784, 128, 10)), adam(1e-3), 128


class Watch:
    """Watches this process's anonymous memory and what it reads from storage, inside a ``with``."""

    def __enter__(self):
        """Begin to look."""
        self.peak, self.done, self.before = 0, threading.Event(), _number("/proc/self/io", "read_bytes:")
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self):
        """Remember the most anonymous memory that was seen."""
        while True:
            self.peak = max(self.peak, 1024 * _number("/proc/self/status", "RssAnon:"))
            if self.done.wait(0.02):
                return

    def __exit__(self, *_):
        """Stop looking."""
        self.done.set()
        self.thread.join()
        self.read = _number("/proc/self/io", "read_bytes:") - self.before


def _number(path, name):
    with open(path) as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


def replicate(path, array, copies):
    """Write an array so many times, one after another, into one ``.npy`` file on the storage."""
    with open(path, "wb") as file:
        shape = (copies * len(array), *array.shape[1:])
        header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(copies):
            array.tofile(file)
        file.flush()
        os.fsync(file.fileno())


def drop_from_cache(path):
    """Let the system forget what it holds of a file that no process has mapped."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(path):
    """Read a file once, so that the system holds it."""
    with open(path, "rb", buffering=0) as file:
        while file.read(2**24):
            pass


def from_disk(folder, seed):
    """Train a part of an epoch from the files; what it took, and what was seen meanwhile."""
    data = mlpjax.DiskData(folder / "x.npy", folder / "y.npy")
    seen = []

    def enough(progress):
        seen.append(progress)
        return progress.step >= PART * progress.steps

    key = jax.random.key(seed)
    with Watch() as watch:
        result = mlpjax.fit(CONFIG, OPTIMIZER, data, epochs=1, batch_size=BATCH_SIZE, key=key, callback=enough)
    return {
        "seconds": result.seconds_train,
        "rate": seen[-1].step * BATCH_SIZE / result.seconds_train,
        "loss": seen[-1].loss,
        "anonymous_bytes": watch.peak,
        "read_from_storage": watch.read,
    }


def from_memory(batch, epochs, seed):
    """Train from memory; what it took."""
    result = mlpjax.fit(CONFIG, OPTIMIZER, batch, epochs=epochs, batch_size=BATCH_SIZE, key=jax.random.key(seed))
    rate = epochs * len(batch.x) / result.seconds_train
    return {"seconds": result.seconds_train, "rate": rate, "loss": result.history["train_loss"][-1]}


def measure(folder, batch, epochs, rounds, prepare):
    """Train in turns, after ``prepare`` of each file; ``ratio`` and ``ratios`` of the rates, and the runs."""
    runs = {"memory": [], "disk": []}
    for i in range(rounds):
        # who is first changes from round to round
        for kind in ("memory", "disk") if i % 2 else ("disk", "memory"):
            if kind == "memory":
                runs[kind].append(from_memory(batch, epochs, i))
            else:
                for name in ("x.npy", "y.npy"):
                    prepare(folder / name)
                runs[kind].append(from_disk(folder, i))
        a, b = (runs[kind][-1]["rate"] for kind in ("memory", "disk"))
        print(f"round {i + 1}: {a:,.0f} examples/s from memory, {b:,.0f} from disk, ratio {b / a:.3f}", flush=True)
    ratios = [b["rate"] / a["rate"] for a, b in zip(runs["memory"], runs["disk"], strict=True)]
    return {"ratio": statistics.median(ratios), "ratios": ratios, **runs}


def summary(title, found):
    """Print what a measurement found."""
    a, b = (statistics.median(row["rate"] for row in found[kind]) for kind in ("memory", "disk"))
    read = statistics.median(row["read_from_storage"] for row in found["disk"])
    print(f"{title}: median ratio {found['ratio']:.3f}, from {min(found['ratios']):.3f} to {max(found['ratios']):.3f};")
    print(f"  medians {a:,.0f} and {b:,.0f} examples/s, {read / 1e6:,.0f} MB from storage")


def main() -> int:
    """Print and write what was measured; returns 1 when a claim is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", help="the folder with MNIST")
    parser.add_argument("--folder", help="where the file is written")
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES, help="its size")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--keep", action="store_true", help="do not delete the file")
    args = parser.parse_args()
    mnist = mlpjax.load_dataset("mnist", data_dir=args.data_dir)
    x, y = np.asarray(mnist.x, np.uint8).reshape(len(mnist.x), -1), np.asarray(mnist.y, np.uint8)
    copies = max(1, -(-int(args.gigabytes * 1e9) // x.nbytes))
    needed = copies * (x.nbytes + y.nbytes)
    folder = Path(tempfile.mkdtemp(prefix="from-disk-", dir=args.folder))
    try:
        free = shutil.disk_usage(folder).free
        if free < 1.05 * needed:
            print(f"{folder} has {free / 1e9:.1f} GB free, {1.05 * needed / 1e9:.1f} are needed: give another --folder")
            return 2
        started = time.perf_counter()
        replicate(folder / "x.npy", x, copies)
        replicate(folder / "y.npy", y, copies)
        print(f"{copies} copies, {needed / 1e9:.2f} GB, written in {time.perf_counter() - started:.0f} s", flush=True)
        batch, epochs = mlpjax.Batch(x, y), max(1, round(copies * PART))
        for name in ("x.npy", "y.npy"):
            read_through(folder / name)
        warm = measure(folder, batch, epochs, args.rounds, lambda path: None)
        cold = measure(folder, batch, epochs, COLD_ROUNDS, drop_from_cache)
    finally:
        if args.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)

    peak = max(row["anonymous_bytes"] for found in (warm, cold) for row in found["disk"])
    summary("warm", warm)
    summary("cold", cold)
    print(f"anonymous memory at most {peak / 1e9:.2f} GB")
    if args.gigabytes >= GIGABYTES:
        result = {
            "claim": CLAIM,
            "network": "784-128-10, Adam, batch 128",
            "bytes": needed,
            "copies": copies,
            "anonymous_bytes": peak,
            "warm": warm,
            "cold": cold,
            "machine": {"cpu_count": os.cpu_count(), "machine": platform.machine()},
            "versions": versions(),
        }
        target = Path(__file__).parent / "results" / "from_disk.json"
        target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(warm["ratio"] < CLAIM["ratio"] or peak >= CLAIM["anonymous_bytes"])


if __name__ == "__main__":
    sys.exit(main())
