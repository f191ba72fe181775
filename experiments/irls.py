"""Logistic regression by Newton's method (IRLS) on the breast-cancer data, against scikit-learn.

569 examples, 30 standardised features; scikit-learn's C = 1, that is l2 = 1/m here, the bias not penalised; all in
float64. Claims: a gradient norm of at most 1e-10 in at most 10 steps, and the coefficients of scikit-learn's
``newton-cholesky`` (tol 1e-10) to 1e-6.

    uv run python experiments/irls.py

Writes experiments/results/irls.json, and exits with an error when a claim is missed.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from mlpjax import logistic
from mlpjax.versions import versions

CLAIMS = {"gradient_norm": 1e-10, "steps": 10, "coefficient_difference": 1e-6}


def main() -> int:
    """Print and write the numbers; returns 1 when a claim is missed."""
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    with jax.enable_x64(True):
        fit = logistic.newton(x, y, l2=1 / len(x), tol=CLAIMS["gradient_norm"])
        unpenalised = logistic.newton(x, y)
    peer = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-10).fit(x, y)
    difference = np.abs(np.append(fit.w, fit.b) - np.append(peer.coef_[0], peer.intercept_))
    result = {
        "claims": CLAIMS,
        "data": {"examples": x.shape[0], "features": x.shape[1]},
        "steps": fit.steps,
        "reason": fit.reason,
        "gradient_norms": fit.gradient_norms.tolist(),
        "costs": fit.costs.tolist(),
        "largest_coefficient_difference": float(difference.max()),
        "without_penalty": {"reason": unpenalised.reason, "steps": unpenalised.steps},
        "versions": {**versions(), "scikit-learn": version("scikit-learn")},
    }
    for step, norm in enumerate(fit.gradient_norms):
        print(f"step {step}: gradient norm {norm:.1e}")
    print(f"largest difference of a coefficient from scikit-learn: {difference.max():.1e}")
    print(f"without a penalty: {unpenalised.message}")
    target = Path(__file__).parent / "results" / "irls.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    missed = not fit.converged or fit.steps > CLAIMS["steps"] or difference.max() > CLAIMS["coefficient_difference"]
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
