"""The experiment on speed: that it runs, that its tables are made from its JSON, and what its floors multiply."""

import dataclasses
import json
from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import pytest

import mlpjax

FOLDER = Path(__file__).parents[1] / "experiments"


@pytest.fixture(scope="module")
def speed():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import speed
        import speed_peers
        import speed_workloads

        # what is installed must not decide what is tested, nor a network of seconds run for minutes
        patch.setattr(speed_peers, "find_spec", lambda name: name == "sklearn" or None)
        short = dataclasses.replace(speed_workloads.WORKLOADS["tiny"], epochs=2)
        patch.setitem(speed_workloads.WORKLOADS, "tiny", short)
        yield speed


@pytest.fixture(scope="module")
def result(speed, tmp_path_factory):
    target = tmp_path_factory.mktemp("speed") / "speed.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "floors", lambda job: {})
        options = speed.Options(workloads=("tiny",), parts=("peers", "backward"), rounds=2, json=target)
        made = speed.made_by(options)
        speed.measure(options, lambda part: speed.write(target, "cpu", part, made))
    return json.loads(target.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_json_has_every_round(result):
    record = result["cpu"]["workloads"]["tiny"]
    assert record["steps"] == 2 * 32
    assert len(record["contenders"]["mlpjax"]["seconds"]) == record["rounds"] == 2
    assert record["left_out"] == dict.fromkeys(("PyTorch", "torch.compile", "Flax NNX", "Equinox"), "not installed")
    assert record["made"]["command"].endswith("--workloads tiny --parts peers backward --rounds 2")
    assert set(result["cpu"]["backward"]["tiny"]["temporary_bytes"]) == {"backward", "autodiff"}
    losses = [record["contenders"][name]["loss"] for name in ("mlpjax", "scikit-learn")]
    np.testing.assert_allclose(losses, np.log(2), rtol=0.2)  # two epochs of a spiral teach nothing


def row(seconds, loss=None, compile_seconds=0.0):
    return {"seconds": seconds, "median": float(np.median(seconds)), "compile": compile_seconds, "loss": loss}


@pytest.fixture
def part(speed):
    contenders = {
        "mlpjax": row([1.0, 2.0, 4.0], 0.1, 0.5),
        "PyTorch": row([3.0, 5.0, 16.0], 0.101),
        "XLA": row([0.5, 1.5, 1.0]),
        "NumPy": row([0.4, 0.5, 2.0]),
        "torch.mm": row([0.1, 1.0, 4.0]),
    }
    record = {
        "title": "64-100-10, batch 100, 1,797 × 60", "dropout": False, "rounds": 3,
        "contenders": contenders, "ratios": speed.ratios(contenders),
        "made": {
            "command": "python experiments/speed.py --workloads small",
            "machine": {"processor": "a processor", "cores": 2, "system": "Linux", "device": "cpu"},
            "versions": {"jax": "0.10.2"},
        },
    }  # fmt: skip
    return {"workloads": {"small": record}}


def test_a_ratio_is_the_median_of_those_within_a_round(part):
    assert part["workloads"]["small"]["ratios"] == {"PyTorch": 3.0, "XLA": 0.5, "NumPy": 0.4, "torch.mm": 0.5}


def test_the_readme_is_made_from_the_json_alone(speed, part):
    block = speed.readme_block({"cpu": json.loads(json.dumps(part))})
    cells = "| **2 s** | 5 s (3.0×) | 1 s (50%) | 0.5 s (40%) | 0.50 s |  |"  # no accelerator
    assert f"| **small**: 64-100-10, batch 100, 1,797 × 60 {cells}" in block
    assert "a processor, 2 cores, Linux; jax 0.10.2" in block
    assert block.endswith("    python experiments/speed.py --workloads small")
    text = speed.rewrite("before\n<!-- speed -->\nold\n<!-- /speed -->\nafter", block)
    assert text == f"before\n<!-- speed -->\n{block}\n<!-- /speed -->\nafter"
    with pytest.raises(ValueError, match="expected once"):
        speed.rewrite("no markers", block)


def test_claims_and_losses_are_judged(speed, part):
    assert [met for met, _ in speed.verdicts(part)] == [False, True, True]  # the fastest peer, the floor, compiling
    record = part["workloads"]["small"]
    assert speed.disagreements("small", record) == []
    record["contenders"]["PyTorch"]["loss"] = 0.103
    assert len(speed.disagreements("small", record)) == 1
    record["contenders"]["PyTorch"]["loss"] = float("nan")
    assert len(speed.disagreements("small", record)) == 1


def test_the_floors_have_the_products_of_a_training(speed):
    import speed_floors
    import speed_workloads

    config = speed_workloads.WORKLOADS["tiny"].config
    workload = speed_workloads.Workload(config=config, data="random", batch_size=4, epochs=3, examples=10)
    job, products = speed_workloads.load_job(workload, None, "cpu"), 3 * config.depth - 1
    orders = job.orders(0)
    done = []

    def product(a, b, out):
        done.append(2.0 * a.shape[0] * a.shape[1] * b.shape[1])
        return np.matmul(a, b, out=out)

    speed_floors.BLAS(job, product, np.ascontiguousarray).train(orders)
    assert len(done) == products * job.steps == products * 9
    # the last batch of an epoch is taken whole
    np.testing.assert_allclose(sum(done) * 10 / 12, speed_floors.flops(job))

    floor = speed_floors.XLA(job)
    lowered = speed_floors.xla_loop.lower(*floor.on_device, floor.steps(orders), floor.b, floor.dtype)
    assert lowered.as_text().count("stablehlo.dot_general") == products
    assert floor.steps(orders) == job.steps
    floor.train(orders)


def test_every_contender_begins_a_round_once(speed):
    from speed_rounds import turns

    rounds = [turns(["a", "b", "c"], done) for done in range(3)]
    assert rounds == [["a", "b", "c"], ["b", "a", "c"], ["c", "a", "b"]]


def test_a_population_is_trained_at_once_and_one_after_another(speed, monkeypatch):
    import speed_many
    import speed_workloads

    job = speed_workloads.load_job(speed_workloads.WORKLOADS["many"], None, "cpu")
    orders, alone = job.orders(0), mlpjax.FitResult(**dict.fromkeys(mlpjax.FitResult._fields))
    result = alone._replace(params="params", seconds_compile=2.0)
    # called as they would be, which a wrong argument would show, without compiling for seconds
    fit_many = create_autospec(mlpjax.fit_many, return_value=[result] * 64)
    fit = create_autospec(mlpjax.fit, return_value=result)
    monkeypatch.setattr(mlpjax, "fit_many", fit_many)
    monkeypatch.setattr(mlpjax, "fit", fit)

    for order in speed_many.ORDERS:
        contenders, _ = speed_many.many(job, order)
        # the calls take no time, and what they say of compiling is taken off
        assert contenders["mlpjax"].train(orders) == {"seconds": pytest.approx(-2.0, abs=1), "compile": 2.0}
        assert contenders["mlpjax.fit"].train(orders) == {"seconds": pytest.approx(-128, abs=32), "compile": 128.0}
        assert contenders["mlpjax.fit"].params() == contenders["mlpjax"].params() == "params"
        assert (fit_many.call_args.kwargs["order_key"] is None) == (order == "own orders")
        assert (fit.call_args.kwargs["order_key"] is None) == (order == "own orders")
    assert fit.call_count == 2 * 8
    # the last of those that are trained alone is the last of all: their losses are compared
    assert fit.call_args.kwargs["key"] == fit_many.call_args.kwargs["keys"][-1]
