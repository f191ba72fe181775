"""The audit finds the faults: a slice of `experiments/detection.py`, on two networks."""

import functools

import jax
import pytest

import mlpjax
from mlpjax import Config
from mlpjax.cases import make_case
from mlpjax.faults import FAULTS, PEERS_13, applies, faulty

pytestmark = pytest.mark.slow
PRECISIONS = ("float64", "float32")
SIZES, EXAMPLES = (20, 16, 5), 32
PEERS = Config(sizes=SIZES, activation="tanh")
NORMALISED = Config(sizes=SIZES, activation="tanh", batch_norm=True)
"""Of the same shapes, so that little more has to be compiled."""
OTHERS = (
    "weights-ignored",
    "labels-of-next-row",
    "dW-from-z",
    "tanh-1-minus-a",
    "softmax-element-wise",
    "batch-norm-ddof-1",
    "batch-norm-other-eps",
    "gradient-0.05-percent-large",
    "one-entry-0.05-percent-large",
    "in-float16",
)


@functools.cache
def peers_case(dtype):
    with jax.enable_x64(dtype == "float64"):
        return make_case(PEERS, m=EXAMPLES)


@functools.cache
def normalised_case(dtype):
    with jax.enable_x64(dtype == "float64"):
        return make_case(NORMALISED, "zeros", m=EXAMPLES)


def audit(case, grad_f, dtype):
    f, grad_f = (functools.partial(function, train=case.train) for function in (mlpjax.loss, grad_f))
    options = {"argnums": 1, "returns": "value_and_grad", "has_aux": True, "kinks": "autodiff", "jit": False}
    return mlpjax.check_gradients(f, grad_f, *case[:5], dtype=dtype, **options)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("case_of", [peers_case, normalised_case])
def test_the_right_gradient_passes(case_of, dtype):
    report = audit(case_of(dtype), mlpjax.backward, dtype)
    assert report.ok, report


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", PEERS_13)
def test_the_thirteen_of_the_peers_are_found(name, dtype):
    report = audit(peers_case(dtype), faulty(FAULTS[name]), dtype)
    assert any(leaf.verdict == "wrong" for leaf in report.leaves), report


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", OTHERS)
def test_others_are_found_under_batch_norm(name, dtype):
    assert applies(FAULTS[name], NORMALISED, weighted=True)
    report = audit(normalised_case(dtype), faulty(FAULTS[name]), dtype)
    assert any(leaf.verdict == "wrong" for leaf in report.leaves), report
