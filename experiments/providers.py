"""How far the three providers of gradients are from each other: by hand, by the computation graph, by `jax.grad`.

Every activation with every head, each as four networks: plain; with batch-norm, dropout, both penalties and weights,
training; the same in evaluation; and with units exactly on the activation's kink. float64. The difference of a leaf is
max|a − b| / max(max|a|, max|b|). Claim: at most 1e-10.

    uv run python experiments/providers.py

Writes experiments/results/providers.json, and exits with an error when the claim is missed.
"""

import itertools
import json
import sys
from pathlib import Path

import jax
import numpy as np

import mlpjax
from mlpjax import ACTIVATIONS, HEADS, Config
from mlpjax.cases import make_case, on_kink
from mlpjax.graph_trace import graph_gradient
from mlpjax.versions import versions

CLAIM = 1e-10
OUTPUTS = {"binary": 1, "multilabel": 3, "multiclass": 3, "regression": 3, "regression_relu": 3}
EVERYTHING = {"batch_norm": True, "dropout": 0.3, "l1": 0.02, "l2": 0.3}
VARIANTS = {
    "plain": ({}, "none", True),
    "everything": (EVERYTHING, "zeros", True),
    "evaluation": (EVERYTHING, "given", False),
    "kink": ({"dropout": (0.2, None), "l1": 0.02}, "given", True),
}
PROVIDERS = {"backward": mlpjax.backward, "graph": graph_gradient, "autodiff": mlpjax.autodiff}


def difference(a: tuple[mlpjax.Layer, ...], b: tuple[mlpjax.Layer, ...]) -> float:
    """The largest relative difference over the leaves of two gradients; a leaf of zeros must be zeros in both."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(abs(x - y).max() / (max(abs(x).max(), abs(y).max()) or 1)) for x, y in pairs)


def main() -> int:
    """Print and write the differences; returns 1 when the claim is missed."""
    assert OUTPUTS.keys() == HEADS.keys()
    found: dict[tuple[str, str], dict[str, float]] = {pair: {} for pair in itertools.combinations(PROVIDERS, 2)}
    networks = list(itertools.product(ACTIVATIONS, OUTPUTS, VARIANTS))
    with jax.enable_x64(True):
        for activation, head, variant in networks:
            options, weight, train = VARIANTS[variant]
            config = Config(sizes=(3, 4, OUTPUTS[head]), activation=activation, head=head, **options)
            case = make_case(config, weight, train)
            if variant == "kink":
                case = on_kink(case)
            gradients = {name: case.call(provider)[1] for name, provider in PROVIDERS.items()}
            for a, b in found:
                found[a, b][f"{activation} × {head}, {variant}"] = difference(gradients[a], gradients[b])
    result = {"claim": CLAIM, "networks": len(networks), "versions": versions(), "float64": {}}
    for (a, b), errors in found.items():
        worst = max(errors, key=errors.__getitem__)
        values = list(errors.values())
        result["float64"][f"{a} and {b}"] = {"worst": errors[worst], "where": worst, "median": float(np.median(values))}
        print(f"{a} and {b}: worst {errors[worst]:.1e} ({worst}) of {len(errors)} networks")
    target = Path(__file__).parent / "results" / "providers.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(pair["worst"] > CLAIM for pair in result["float64"].values()))


if __name__ == "__main__":
    sys.exit(main())
