"""Which wrong gradients each checker of gradients finds: `mlpjax.check_gradients` and three others.

The 136 faults of `mlpjax.faults`, each on its own network, and 13 of them on the tanh network 20-16-5 with softmax
and 32 samples, on which other checkers were measured before. The others are `jax.test_util.check_grads`,
`chex.assert_numerical_grads` (both order 1, in reverse mode, of the loss with the gradient as its custom VJP) and,
where PyTorch is installed, `torch.autograd.gradcheck` (of a Function with the loss forward, the gradient backward),
all with their default tolerances. The right gradient of every network shows what a checker finds that is not there;
gradcheck in float32 is there for completeness: it warns that its step, 1e-6, needs double precision.
Claims: ours finds every fault in float64, 95 % of them in float32, all of the 13, and raises no false alarm.

    uv run python experiments/detection.py
    uv run --with torch==2.13.0 python experiments/detection.py    # with gradcheck

Writes experiments/results/detection.json, and exits with an error when a claim is missed.
"""

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

import mlpjax
from mlpjax import Config
from mlpjax.cases import Case, make_case
from mlpjax.faults import FAULTS, PEERS_13, Fault, exercise_case, faulty
from mlpjax.step import GradFn
from mlpjax.versions import versions

CLAIMS = {"float64": 100, "float32": 95}
"""Percent of the faults that ours finds."""
OURS = "mlpjax"
PEERS_CONFIG = Config(sizes=(20, 16, 5), activation="tanh", head="multiclass")
DRAWS = 10
RIGHT = "right gradient"

Accepts = Callable[[GradFn], bool]
"""Whether a checker accepts a gradient function, on a network that is given."""


def checkers(case: Case, dtype: str) -> dict[str, Accepts]:
    """The checkers for one network; torch's where it is installed."""
    found: dict[str, Accepts] = {
        OURS: partial(accepted_by_ours, case, dtype),
        "check_grads": partial(accepted_by_jax, case, check_grads),
        "chex": partial(accepted_by_jax, case, chex.assert_numerical_grads),
    }
    if find_spec("torch"):
        found["gradcheck"] = gradcheck(case)
    return found


def accepted_by_ours(case: Case, dtype: str, grad_f: GradFn) -> bool:
    """`mlpjax.check_gradients`."""
    return mlpjax.check_gradients(
        partial(mlpjax.loss, train=case.train), partial(grad_f, train=case.train), *case[:5],
        argnums=1, returns="value_and_grad", has_aux=True, dtype=dtype, kinks="autodiff", jit=False,
    ).ok  # fmt: skip


def accepted_by_jax(case: Case, check: Callable[..., None], grad_f: GradFn) -> bool:
    """`jax.test_util.check_grads`, or chex's function on top of it."""
    try:
        check(with_vjp(case, grad_f), tuple(jax.tree.leaves(case.params)), order=1, modes=("rev",))
    except AssertionError:
        return False
    return True


def with_vjp(case: Case, grad_f: GradFn) -> Callable[..., jax.Array]:
    """J as a function of the leaves of the parameters, with a gradient function in the place of its derivative."""
    tree = jax.tree.structure(case.params)

    @jax.custom_vjp
    def J(*leaves: jax.Array) -> jax.Array:
        return case.call(mlpjax.loss, params=jax.tree.unflatten(tree, leaves))[0]

    def forward(*leaves: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        (value, _), grads = case.call(grad_f, params=jax.tree.unflatten(tree, leaves))
        return value, jax.tree.leaves(grads)

    def backward(grads: list[jax.Array], cotangent: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(cotangent * leaf for leaf in grads)

    J.defvjp(forward, backward)
    return J


def gradcheck(case: Case) -> Accepts:
    """`torch.autograd.gradcheck`: JAX computes the loss and the gradient, torch what it makes of them."""
    import torch

    tree = jax.tree.structure(case.params)
    # once per network: its differences call the loss twice for every parameter
    loss = jax.jit(lambda leaves: case.call(mlpjax.loss, params=jax.tree.unflatten(tree, leaves))[0])

    def tensor(leaf: Any) -> Any:
        return torch.from_numpy(np.array(leaf))

    def accepts(grad_f: GradFn) -> bool:
        class J(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *leaves: Any) -> Any:
                ctx.save_for_backward(*leaves)
                return tensor(loss([leaf.detach().numpy() for leaf in leaves]))

            @staticmethod
            def backward(ctx: Any, cotangent: Any) -> tuple[Any, ...]:
                params = jax.tree.unflatten(tree, [jnp.asarray(leaf.numpy()) for leaf in ctx.saved_tensors])
                _, grads = case.call(grad_f, params=params)
                return tuple(cotangent * tensor(leaf) for leaf in jax.tree.leaves(grads))

        inputs = [tensor(leaf).requires_grad_() for leaf in jax.tree.leaves(case.params)]
        with warnings.catch_warnings():
            # in float32 it says that it is likely to fail
            warnings.filterwarnings("ignore", "Input #. requires gradient and is not a double", UserWarning)
            return torch.autograd.gradcheck(J.apply, inputs, raise_exception=False)

    return accepts


class Network(NamedTuple):
    """A network of the catalogue, with the name of the first fault shown on it; its case in the precision in force."""

    name: str
    draw: Callable[[], Case]
    faults: list[Fault]


def networks() -> list[Network]:
    """Each network once: what JAX compiles for one fault serves the others on it."""
    groups: dict[str, list[Fault]] = {}
    for fault in FAULTS.values():
        groups.setdefault(repr(fault.exercise), []).append(fault)
    return [Network(faults[0].name, partial(exercise_case, faults[0].exercise), faults) for faults in groups.values()]


def peers_networks() -> list[Network]:
    """The network of the 13, drawn several times: what a checker of one direction finds differs from draw to draw."""
    faults = [FAULTS[name] for name in PEERS_13]
    return [Network(f"draw {seed}", partial(make_case, PEERS_CONFIG, m=32, seed=seed), faults) for seed in range(DRAWS)]


class Finding(NamedTuple):
    """One checker on one gradient: ``fault`` is ``None`` for the right one."""

    checker: str
    network: str
    fault: str | None
    rejected: bool
    seconds: float


def look(network: Network, dtype: str) -> list[Finding]:
    """Every checker on the right gradient of a network, then on the wrong ones."""
    findings = []
    with jax.enable_x64(dtype == "float64"):
        gradients = [(None, mlpjax.backward), *((fault.name, faulty(fault)) for fault in network.faults)]
        for checker, accepts in checkers(network.draw(), dtype).items():
            for fault, grad_f in gradients:
                started = time.perf_counter()
                rejected = not accepts(grad_f)
                findings.append(Finding(checker, network.name, fault, rejected, time.perf_counter() - started))
    return findings


def summary(findings: list[Finding]) -> dict[str, dict[str, Any]]:
    """What each checker found of the faults, and what it found wrong with right gradients.

    A fault is told apart where it is rejected and the right gradient of the same network accepted.
    """
    result = {}
    for checker in dict.fromkeys(finding.checker for finding in findings):
        own = [finding for finding in findings if finding.checker == checker]
        wrong = [finding for finding in own if finding.fault is not None]
        right = [finding for finding in own if finding.fault is None]
        found = sum(finding.rejected for finding in wrong)
        alarmed = [finding.network for finding in right if finding.rejected]
        result[checker] = {
            "faults": len(wrong),
            "found": found,
            "percent": round(100 * found / len(wrong), 1),
            "told_apart": sum(finding.rejected and finding.network not in alarmed for finding in wrong),
            "missed": [finding.fault for finding in wrong if not finding.rejected],
            "networks": len(right),
            "false_alarms": len(alarmed),
            "alarmed_on": alarmed,
            "median_seconds": round(statistics.median(finding.seconds for finding in own), 4),
        }
    return result


def by_fault(findings: dict[str, list[Finding]], combine: Callable[[list[bool]], Any]) -> dict[str, dict[str, Any]]:
    """``[fault][dtype][checker]``: whether it was rejected, combined over the networks on which it was shown."""
    names = dict.fromkeys(finding.fault for those in findings.values() for finding in those)
    return {
        name or RIGHT: {
            dtype: {
                checker: combine([f.rejected for f in those if (f.fault, f.checker) == (name, checker)])
                for checker in dict.fromkeys(finding.checker for finding in those)
            }
            for dtype, those in findings.items()
        }
        for name in names
    }


def tables(result: dict[str, Any]) -> str:
    """The two tables in Markdown."""
    checkers = list(result["checkers"]["float64"])
    lines = [
        "| checker |" + "".join(f" found in {dtype} | told apart | false alarms |" for dtype in CLAIMS),
        "|---|" + "---|---|---|" * len(CLAIMS),
    ]
    for checker in checkers:
        cells = []
        for row in (result["checkers"][dtype][checker] for dtype in CLAIMS):
            cells.append(f" {row['found']} of {row['faults']} | {row['told_apart']} |")
            cells.append(f" {row['false_alarms']} of {row['networks']} |")
        lines.append(f"| {checker} |" + "".join(cells))
    columns = [(checker, dtype) for checker in checkers for dtype in CLAIMS]
    lines += [
        "",
        f"Rejected, of {DRAWS} draws of the network 20-16-5:",
        "",
        "| gradient |" + "".join(f" {checker} {dtype} |" for checker, dtype in columns),
        "|---|" + "---|" * len(columns),
    ]
    for name, row in result["peers_13"].items():
        lines.append(f"| {name} |" + "".join(f" {row[dtype][checker]} |" for checker, dtype in columns))
    return "\n".join(lines)


def main() -> int:
    """Look, print and write the tables; returns 1 when a claim is missed."""
    started = time.perf_counter()
    catalogue: dict[str, list[Finding]] = {}
    peers: dict[str, list[Finding]] = {}
    for dtype in CLAIMS:
        catalogue[dtype] = [finding for network in networks() for finding in look(network, dtype)]
        peers[dtype] = [finding for network in peers_networks() for finding in look(network, dtype)]
    checked = {dtype: summary(findings) for dtype, findings in catalogue.items()}
    thirteen = {dtype: summary(findings) for dtype, findings in peers.items()}
    ours = {dtype: rows[OURS] for dtype, rows in checked.items()}
    met = {f"found in {d}": ours[d]["found"] >= percent / 100 * ours[d]["faults"] for d, percent in CLAIMS.items()}
    met["the 13"] = not any(rows[OURS]["missed"] for rows in thirteen.values())
    met["no false alarm"] = not any(rows[OURS]["false_alarms"] for rows in (*checked.values(), *thirteen.values()))
    others = ["chex", *(["torch"] if find_spec("torch") else [])]
    result = {
        "claims": CLAIMS,
        "met": met,
        "versions": {**versions(), **{name: version(name) for name in others}},
        "seconds": round(time.perf_counter() - started, 1),
        "checkers": checked,
        "peers_draws": DRAWS,
        "peers_13": by_fault(peers, sum),
        "faults": {name: row for name, row in by_fault(catalogue, any).items() if name != RIGHT},
    }
    target = Path(__file__).parent / "results" / "detection.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(tables(result))
    for dtype, row in ours.items():
        print(f"{dtype}: {row['median_seconds']} s a check by {OURS}, missed {row['missed']}")
    return int(not all(met.values()))


if __name__ == "__main__":
    sys.exit(main())
