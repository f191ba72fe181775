"""The experiment that measures the lecture's advice: its rule, its population, and that its claims are well formed."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from mlpjax import Config, optim
from mlpjax.ledger import load_ledger

FOLDER = Path(__file__).parents[1] / "experiments"


@pytest.fixture(scope="module")
def advice():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import advice

        yield advice


@pytest.fixture(scope="module")
def report(advice):
    import advice_report

    return advice_report


def case(report, advised, other, **how):
    sides = (report.Side(name, np.array(values, float)) for name, values in (("a", advised), ("b", other)))
    return report.Case("case", "measure", *sides, **how)


def test_every_claim_says_what_it_measures_and_names_rows_of_the_ledger(report):
    ledger = load_ledger()
    for name, claim in report.CLAIMS.items():
        assert claim.says.endswith("."), name
        assert claim.setup.endswith("."), name
        assert claim.seeds >= 10, name
        assert claim.ids, name
        assert set(claim.ids) <= {*ledger.rows, *ledger.errata}, name


def test_every_section_of_the_advice_has_claims(report):
    prefixes = {id.partition("-")[0] for claim in report.CLAIMS.values() for id in claim.ids}
    assert {"train", "opt", "init", "reg", "norm"} <= prefixes


@pytest.mark.parametrize(
    ("advised", "other", "how", "verdict"),
    [
        ([1, 1, 1, 1, 3], [2, 2, 2, 2, 2], {}, "confirmed"),
        ([1, 1, 1, 3, 3], [2, 2, 2, 2, 2], {}, "open"),
        ([2, 2, 2, 2, 1], [1, 1, 1, 1, 2], {}, "reversed"),
        ([1, 1, 1, 1, 3], [2, 2, 2, 2, 2], {"higher": True}, "reversed"),
        ([1.96] * 5, [2] * 5, {}, "open"),
        ([1] * 5, [1] * 5, {}, "open"),
        ([1] * 5, [1] * 5, {"no_worse": True}, "confirmed"),
        ([2] * 5, [1] * 5, {"no_worse": True}, "reversed"),
        ([1] * 5, [np.inf] * 5, {}, "confirmed"),
        ([np.nan] * 5, [1] * 5, {}, "reversed"),
        ([np.nan] * 5, [1] * 5, {"higher": True}, "reversed"),
        ([np.inf] * 5, [np.nan] * 5, {}, "open"),
    ],
)
def test_verdict_of_a_case(report, advised, other, how, verdict):
    assert report.verdict_of(case(report, advised, other, **how)) == verdict


def test_verdict_of_a_claim(report):
    good, bad = case(report, [1] * 5, [2] * 5), case(report, [2] * 5, [1] * 5)
    assert report.verdict([good, good]) == "confirmed"
    assert report.verdict([good, bad]) == "depends"
    assert report.verdict([bad, bad]) == "not confirmed"


def test_spread_of_values(report):
    assert report.spread(np.array([3.0, 1.0, 2.0, np.inf, 0.0])) == {
        "median": 2, "q1": 1, "q3": 3, "min": 0, "max": None,
    }  # fmt: skip


def test_the_best_rate_has_the_lowest_median(report):
    side, place = report.tuned("rule", (0.1, 1.0, 10.0), np.array([[3, 3, 0], [2, 2, 2], [1, np.nan, np.inf]]))
    assert (side.label, place) == ("rule, α = 1", 1)
    assert "edge" in report.tuned("rule", (0.1, 1.0), np.array([[1.0], [2.0]]))[0].label


def test_a_population_is_its_members_one_by_one(advice):
    import advice_population as population

    config = Config(sizes=(64, 10), dropout=(0.2,))

    def member(alpha, problem):
        end, costs = population.descend(config, optim.adam(alpha), problem)
        return population.data_loss(config, end, problem.test), costs

    problems = population.digits_problems(2, train=20, updates=5, batch_size=8)
    rates = (0.01, 0.1)
    loss, costs = population.population(member, [np.float32(rate) for rate in rates], problems)
    assert loss.shape == (2, 2)
    assert costs.shape == (2, 2, 5)
    alone = jax.jit(member)
    for i, rate in enumerate(rates):
        for seed in range(2):
            expected = alone(np.float32(rate), jax.tree.map(lambda leaf, seed=seed: leaf[seed], problems))
            np.testing.assert_allclose(loss[i, seed], expected[0], rtol=1e-4)
            np.testing.assert_allclose(costs[i, seed], expected[1], rtol=1e-4)


def test_problems_are_disjoint_and_epochs_take_every_example_once(advice):
    import advice_population as population

    x, _ = population.digits()
    problems = population.digits_problems(2, train=20, updates=6, batch_size=8)
    for seed in range(2):
        parts = [part.x[seed] for part in (problems.train, problems.valid, problems.test)]
        together = np.concatenate(parts)
        np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(x, axis=0))
        for epoch in problems.rows[seed].reshape(2, 24):
            assert sorted(epoch) == [-1] * 4 + list(range(20))


def test_one_claim_on_two_seeds(advice, report):
    found = advice.measure("shuffling", seeds=2)
    assert found["verdict"] in report.VERDICTS
    assert [entry["case"] for entry in found["cases"]] == ["one order", "sorted by class"]
    new, by_class = (found["cases"][1][side]["median"] for side in ("advised", "other"))
    assert new < by_class
    assert "sorted by class" in report.lines("shuffling", found)
    json.dumps(found, allow_nan=False)


def test_the_committed_results_are_of_these_claims(advice, report):
    claims = json.loads(advice.TARGET.read_text(encoding="utf-8"))["claims"]
    assert list(claims) == list(report.CLAIMS)
    for name, claim in claims.items():
        assert claim["ids"] == list(report.CLAIMS[name].ids)
        assert claim["verdict"] in report.VERDICTS
        assert claim["seeds"] == report.CLAIMS[name].seeds
