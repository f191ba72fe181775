"""How far the hand-derived gradients are from `jax.grad`, in float64 and in float32.

Every activation with every head, and networks that combine depth, batch-norm, dropout, penalties, weights and
mixed activations. The error of a leaf is max|hand − autodiff| / max|autodiff|. Claim: at most 1e-10 in float64.

    uv run python experiments/gradients.py

Writes experiments/results/gradients.json, and exits with an error when the claim is missed.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

import mlpjax
from mlpjax import ACTIVATIONS, HEADS, Batch, Config
from mlpjax.versions import versions

CLAIM = 1e-10
OUTPUTS = {"binary": 1, "multilabel": 3, "multiclass": 4, "regression": 2, "regression_relu": 2}
COMBINED = [
    {"sizes": (3, 5, 4), "batch_norm": True},
    {"sizes": (3,), "l1": 0.02, "l2": 0.3},
    {"sizes": (3, 5, 4), "activation": ("prelu", "gelu"), "dropout": (0.1, None, 0.4), "l2": 0.1},
    {"sizes": (3, 7, 6, 5, 4), "activation": ("selu", "arctan", "prelu", "silu"), "batch_norm": True, "dropout": 0.3},
    {"sizes": (3, 5, 4), "bias": False, "activation": "elu", "l1": 0.01},
]


def batch_for(config: Config, rng: np.random.Generator, m: int = 9) -> Batch:
    """Draw examples with weights, one of them 0."""
    n_L = config.sizes[-1]
    y = {
        "binary": rng.integers(0, 2, m),
        "multilabel": rng.integers(0, 2, (m, n_L)),
        "multiclass": rng.integers(0, n_L, m),
    }.get(config.head, rng.uniform(0, 2, (m, n_L)))
    weight = rng.uniform(0.5, 2, m)
    weight[0] = 0
    return Batch(rng.normal(size=(m, config.sizes[0])), y, weight)


def error(config: Config) -> float:
    """The largest error over the leaves of one network's gradient."""
    key = jax.random.key(0)
    params, state = mlpjax.init(config, key)
    batch = batch_for(config, np.random.default_rng(1))
    _, hand = mlpjax.backward(config, params, state, batch, key)
    _, auto = mlpjax.autodiff(config, params, state, batch, key)
    errors = jax.tree.map(lambda h, a: float(abs(h - a).max() / abs(a).max()) if abs(a).max() > 0 else 0.0, hand, auto)
    return max(jax.tree.leaves(errors))


def main() -> int:
    """Print and write the errors; returns 1 when the claim is missed."""
    configs = {
        f"{activation} × {head}": Config(sizes=(3, 5, n_L), activation=activation, head=head)
        for activation in ACTIVATIONS
        for head, n_L in OUTPUTS.items()
    }
    for number, options in enumerate(COMBINED, start=1):
        for head, n_L in OUTPUTS.items():
            rest = {**options, "sizes": (*options["sizes"], n_L)}
            configs[f"combination {number} × {head}"] = Config(head=head, **rest)
    assert OUTPUTS.keys() == HEADS.keys()

    result = {"claim": CLAIM, "networks": len(configs), "versions": versions()}
    for name, x64 in (("float64", True), ("float32", False)):
        with jax.enable_x64(x64):
            errors = {label: error(config) for label, config in configs.items()}
        worst = max(errors, key=errors.__getitem__)
        result[name] = {"worst": errors[worst], "where": worst, "median": float(np.median(list(errors.values())))}
        print(f"{name}: worst {errors[worst]:.1e} ({worst}) of {len(errors)} networks")
    target = Path(__file__).parent / "results" / "gradients.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(result["float64"]["worst"] > CLAIM)


if __name__ == "__main__":
    sys.exit(main())
