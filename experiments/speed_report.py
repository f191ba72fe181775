"""What the experiment on speed makes of its numbers: the claims, and the tables, both from the JSON alone."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from typing import Any

from speed_peers import PEERS
from speed_rounds import DISTURBED, ratio

BANDS = {"same start": 1.02, "dropout": 1.5, "own start": 4.0}
"""By which factor the final loss may differ from mlpjax's. Peers with the same weights and batches differ by rounding
only; where units are dropped, every library drops others; scikit-learn draws its own weights and orders, which on a
spiral decide how soon it is learnt."""
NAMES = ("tiny", "small", "medium", "large", "deep", "many")
CLAIMS: dict[str, dict[str, float]] = {
    "times as fast as the fastest peer": {"tiny": 8, "small": 5, "medium": 2.5, "deep": 1.3, "large": 1.05},
    "times as fast as scikit-learn": {"tiny": 20, "many, shared order": 20, "many, own orders": 12},
    "of the speed of XLA's products": {"large": 0.9, "medium": 0.6, "small": 0.3},
}
"""At least."""
LIMITS: dict[str, dict[str, float]] = {
    "seconds to compile": {"small": 1.0, "medium": 1.0},
    "backward : autodiff": dict.fromkeys(NAMES, 1.02),
    "memory of backward : autodiff": dict.fromkeys(NAMES, 1.0),
}
"""At most."""
START, END = "<!-- speed -->", "<!-- /speed -->"


def measured(part: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """What was measured, as (what, workload, value), by the names of `CLAIMS` and `LIMITS`."""
    for name, record in part.get("workloads", {}).items():
        rows, ratios = record["contenders"], record["ratios"]
        peers = [ratios[peer] for peer in PEERS if peer in ratios]
        if peers:
            yield "times as fast as the fastest peer", name, min(peers)
        if "scikit-learn" in ratios:
            yield "times as fast as scikit-learn", name, ratios["scikit-learn"]
        if "XLA" in ratios:
            yield "of the speed of XLA's products", name, ratios["XLA"]
        yield "seconds to compile", name, rows["mlpjax"]["compile"]
    for name, record in part.get("backward", {}).items():
        memory = record["temporary_bytes"]
        yield "backward : autodiff", name, record["ratio"]
        # a program may need none
        yield "memory of backward : autodiff", name, (memory["backward"] + 1) / (memory["autodiff"] + 1)


def verdicts(part: dict[str, Any]) -> list[tuple[bool, str]]:
    """Each claim that was measured: whether it is met, and a line that says so."""
    found = []
    for what, name, value in measured(part):
        if name in CLAIMS.get(what, {}):
            bound, met, side = CLAIMS[what][name], value >= CLAIMS[what][name], "at least"
        elif name in LIMITS.get(what, {}):
            bound, met, side = LIMITS[what][name], value <= LIMITS[what][name], "at most"
        else:
            continue
        found.append((met, f"{'met' if met else 'MISSED'}: {name}: {value:.3g} {what}, claim {side} {bound:g}"))
    return found


def disagreements(name: str, record: dict[str, Any]) -> list[str]:
    """Lines about final losses outside their band."""
    ours, found = record["contenders"]["mlpjax"]["loss"], []
    for other, row in record["contenders"].items():
        if (loss := row["loss"]) is not None:
            kind = "own start" if other == "scikit-learn" else "dropout" if record["dropout"] else "same start"
            band = BANDS[kind]
            if not ours / band <= loss <= ours * band:
                found.append(f"{name}: final loss {loss:.4g} of {other}, ours {ours:.4g}: not within a factor {band:g}")
    return found


def disturbance(name: str, record: dict[str, Any]) -> list[str]:
    """A line where other processes had more than a little of the processors in half of the rounds."""
    others = statistics.median(record["contenders"]["mlpjax"]["others"])
    return [f"{name}: other processes took {others:.0%} of the processors"] if others > DISTURBED else []


def ratios(rows: dict[str, Any]) -> dict[str, float]:
    """How many times as long as mlpjax each contender takes; below 1 for the floors."""
    return {name: ratio(rows, name, "mlpjax") for name in rows if name != "mlpjax"}


def table(part: dict[str, Any], accelerator: dict[str, Any] | None = None) -> str:
    """The times as a table in Markdown; with a column of mlpjax's on an accelerator if those records are given."""
    records = part["workloads"]
    peers = [peer for peer in PEERS if any(peer in record["contenders"] for record in records.values())]
    names = ["", "mlpjax", *peers, "products in XLA", "products in BLAS", "compile"]
    names += [] if accelerator is None else ["on an accelerator"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for name, record in records.items():
        rows = record["contenders"]
        cells = [f"**{name}**: {record['title']}", f"**{_seconds(rows['mlpjax'])}**"]
        for peer in peers:
            cells.append(f"{_seconds(rows[peer])} ({record['ratios'][peer]:.1f}×)" if peer in rows else "–")
        blas = min((n for n in ("NumPy", "torch.mm") if n in rows), key=lambda n: rows[n]["median"], default=None)
        for floor in ("XLA", blas):
            cells.append(f"{_seconds(rows[floor])} ({record['ratios'][floor]:.0%})" if floor in rows else "–")
        cells.append(f"{rows['mlpjax']['compile']:.2f} s")
        if accelerator is not None:
            cells.append(_seconds(accelerator[name]["contenders"]["mlpjax"]) if name in accelerator else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def growth(scaling: dict[str, Any]) -> str:
    """The growth of the time, as sentences and a table in Markdown."""
    exponents = ", ".join(f"{name} {scaling[name]['exponent']:.2f}" for name in ("epochs", "depth", "examples"))
    widths = scaling["widths"]
    lines = [
        f"Time grows as a power of the epochs, hidden layers and examples, with the fitted exponents {exponents}.",
        "",
        f"| nanoseconds per example and weight, width | {' | '.join(str(row['width']) for row in widths)} |",
        f"|---|{'---|' * len(widths)}",
    ]
    for name, label in (("mlpjax", "mlpjax"), ("XLA", "products in XLA")):
        costs = [f"{row['nanoseconds'][name]:.3g}" for row in widths]
        lines.append(f"| {label} | {' | '.join(costs)} |")
    return "\n".join(lines)


def alone(workloads: dict[str, Any]) -> list[str]:
    """What `mlpjax.fit` takes for the networks of a population, one after another, as sentences."""
    return [
        f"{name}: `mlpjax.fit`, one after another, takes {record['ratios']['mlpjax.fit']:.1f} times as long."
        for name, record in workloads.items()
        if "mlpjax.fit" in record["ratios"]
    ]


def rates(workloads: dict[str, Any]) -> list[str]:
    """What share of the accelerator's peak the networks reach, where it is known, as sentences."""
    found = []
    for name, record in workloads.items():
        if "flops_per_second" in record:
            share = (
                "" if record["share_of_peak"] is None else f", {record['share_of_peak']:.0%} of the peak in bfloat16"
            )
            found.append(f"{name}: {record['flops_per_second'] / 1e12:.3g} TFLOP/s{share}.")
    return found


def gradients(backward: dict[str, Any]) -> str:
    """`backward` against `autodiff`, as a sentence."""
    told = ", ".join(f"{name} {record['ratio']:.2f}" for name, record in backward.items())
    return f"`backward` takes, relative to `autodiff` in the same loop: {told}."


def readme_block(result: dict[str, Any]) -> str:
    """The README's part on speed, from the whole JSON."""
    blocks = []
    accelerator = result.get("gpu", {}).get("workloads", {})
    for device, part in result.items():
        if "workloads" in part:
            rounds = sorted({record["rounds"] for record in part["workloads"].values()})
            blocks.append(
                "Seconds of training; in brackets how many times as long as mlpjax, and for the products alone their "
                f"share of its time. Medians of {' or '.join(map(str, rounds))} rounds in which all have their turn."
            )
            blocks.append(table(part, accelerator if device == "cpu" else None))
            blocks += [*alone(part["workloads"]), *rates(part["workloads"])]
        if "backward" in part:
            blocks.append(gradients(part["backward"]))
        if "scaling" in part:
            blocks.append(growth(part["scaling"]))
        blocks += made_by(part)
    return "\n\n".join(blocks)


def made_by(part: dict[str, Any]) -> list[str]:
    """Where and by which command the records were made; one text for those that were made alike."""
    records = [*part.get("workloads", {}).values(), *part.get("backward", {}).values()]
    records += [part["scaling"]] if "scaling" in part else []
    found = []
    for record in records:
        made = record["made"]
        versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        machine = made["machine"]
        where = machine["device"] if machine["device"] != "cpu" else f"{machine['processor']}, {machine['cores']} cores"
        found.append(f"Measured on {where}, {machine['system']}; {versions}:\n\n    {made['command']}")
    return list(dict.fromkeys(found))


def rewrite(text: str, block: str) -> str:
    r"""Replace what stands between the markers.

    Raises:
        ValueError: if the text does not have each marker once.

    >>> rewrite("a <!-- speed --> old <!-- /speed --> b", "new")
    'a <!-- speed -->\nnew\n<!-- /speed --> b'
    """
    if text.count(START) != 1 or text.count(END) != 1:
        raise ValueError(f"the text has {START} {text.count(START)} times and {END} {text.count(END)}: expected once")
    return re.sub(f"{START}.*{END}", lambda _: f"{START}\n{block}\n{END}", text, flags=re.DOTALL)


def _seconds(row: dict[str, Any]) -> str:
    return f"{row['median']:.3g} s"
