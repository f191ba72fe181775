"""Three providers of the network's gradients agree: by hand, by the computation graph, and by autodiff."""

import itertools

import jax
import pytest
from cases import all_pairs, assert_close, covering_array, make_case

import mlpjax
from mlpjax import ACTIVATIONS, HEADS, Config
from mlpjax.cases import on_kink
from mlpjax.graph_trace import graph_gradient

pytestmark = pytest.mark.slow
OUTPUTS = {"binary": 1, "multilabel": 3, "multiclass": 3, "regression": 3, "regression_relu": 3}
FACTORS = {
    "activation": tuple(ACTIVATIONS),
    "head": tuple(HEADS),
    "batch_norm": (False, True),
    "bias": (False, True),
    "dropout": (None, 0.3, (0.2, None)),
    "l1": (None, 0.02),
    "l2": (None, 0.3),
    "weight": ("none", "given", "zeros"),
    "train": (True, False),
    "kink": (False, True),
}
ROWS = covering_array(FACTORS)


def assert_providers_agree(head, *, weight="none", train=True, kink=False, **options):
    """Values, aux and gradients of the three, leaf by leaf, to 1e-10 of its scale, in float64."""
    config = Config(sizes=(3, 4, OUTPUTS[head]), head=head, **options)
    case = make_case(config, weight, train)
    if kink:
        case = on_kink(case)
    hand, graph, auto = (case.call(provider) for provider in (mlpjax.backward, graph_gradient, mlpjax.autodiff))
    assert jax.tree.structure(graph) == jax.tree.structure(hand) == jax.tree.structure(auto)
    for got, expected in ((graph, hand), (graph, auto), (hand, auto)):
        assert_close(got[0], expected[0], 1e-10)
        assert_close(got[1], expected[1], 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_with_every_head(activation, x64):
    """With everything on: batch-norm, dropout, both penalties, weights; and in evaluation."""
    for head in HEADS:
        options = {"activation": activation, "batch_norm": True, "dropout": 0.3, "l1": 0.02, "l2": 0.3}
        assert_providers_agree(head, weight="zeros", **options)


@pytest.mark.parametrize("part", range(7))
def test_every_pair_of_factors(part, x64):
    for row in ROWS[part::7]:
        assert_providers_agree(**row)


def test_the_rows_cover_every_pair():
    covered = {tuple(sorted(pair)) for row in ROWS for pair in itertools.combinations(row.items(), 2)}
    assert all_pairs(FACTORS) <= covered


def test_a_deep_network_of_mixed_activations(x64):
    config = Config(
        sizes=(3, 4, 4, 4, 3),
        activation=("prelu", "gelu", "selu"),
        batch_norm=True,
        dropout=(0.1, None, 0.3, 0.2),
        l2=0.1,
    )
    case = make_case(config, "given")
    (_, graph), (_, auto) = case.call(graph_gradient), case.call(mlpjax.autodiff)
    assert_close(graph, auto, 1e-10)
