"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import mlpjax

MODULES = [info.name for info in pkgutil.walk_packages(mlpjax.__path__, "mlpjax.")]
SLOW = {
    "augment", "augment_vectors", "doctor", "faults", "faults_exercise", "initializers", "kfac", "logistic", "modes",
    "networks", "one_hidden", "population", "r_operator", "signals", "softmax_regression", "sweep", "universal",
    "vanishing",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n.removeprefix("mlpjax.") in SLOW else ()) for n in MODULES]
)
def test_examples(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module, extraglobs={"mlpjax": mlpjax}, optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


def test_every_public_function_has_an_example():
    missing = [
        name
        for name in mlpjax.__all__
        if callable(getattr(mlpjax, name))
        and not isinstance(getattr(mlpjax, name), type)
        and ">>>" not in (getattr(mlpjax, name).__doc__ or "")
    ]
    assert not missing
