"""``mlpjax audit`` as people use it: this package, one network, a gradient of their own, and what goes wrong."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from mlpjax import ACTIVATIONS, Config, audit_command, cli
from mlpjax.activations import Activation
from mlpjax.cases import make_case
from mlpjax.faults import FAULTS, faulty
from mlpjax.gradient_files import write_gradient
from mlpjax.networks import default_networks

SMALL = '{"sizes": [3, 6, 2], "head": "regression", "activation": "tanh"}'


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; returns the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.main(["audit", *(str(argument) for argument in arguments)])
        return code, *capsys.readouterr()

    return run


def report(name="r.json"):
    with open(name, encoding="utf-8") as file:
        return json.load(file, parse_constant=pytest.fail)


@pytest.fixture
def few(monkeypatch):
    """Three of the networks instead of all."""
    some = [network for network in default_networks() if network.name.startswith("relu × reg")]
    monkeypatch.setattr(audit_command, "default_networks", lambda: some)
    return some


@pytest.mark.slow
def test_this_package(run, few):
    code, out, err = run("--json", "r.json")
    assert (code, err) == (0, "2 networks, float64: hand-derived gradients against every oracle\n")
    assert "relu × regression" in out
    assert "relu′(0)" in out
    assert re.search(r"2 networks, \d+ elements, 11 values at kinks: all right, \d+ s\n$", out)
    result = report()
    assert result["ok"] is True
    assert [network["name"] for network in result["networks"]] == [network.name for network in few]
    assert result["networks"][0]["leaves"][0]["verdict"] == "agrees"
    assert all(kink["ok"] for kink in result["kinks"])


@pytest.mark.slow
def test_a_wrong_formula_in_this_package_is_found(run, few, monkeypatch):
    """A derivative wrong by 0.05 %, and a pinned value: exit code 1, the network and the leaf are shown."""
    f = ACTIVATIONS["relu"].f
    wrong = Activation(f, lambda z: jnp.where(z < 0, 0.0, jnp.where(z == 0, 0.5, 1.0005)).astype(z.dtype))
    monkeypatch.setitem(ACTIVATIONS, "relu", wrong)
    code, out, _ = run("--json", "r.json")
    assert code == 1
    assert "params[0].W: wrong: the gradient is not the derivative of f" in out
    assert "3 wrong" in out.splitlines()[-1]
    assert report()["ok"] is False
    assert [kink["name"] for kink in report()["kinks"] if not kink["ok"]] == ["relu′(0)"]


def test_one_network(run):
    code, out, err = run("--config", SMALL, "--weight", "zeros", "--seed", 3, "--json", "r.json")
    assert (code, err) == (0, "")
    assert out.startswith("the gradient is right: 5 leaves,")
    assert report()["config"]["sizes"] == [3, 6, 2]
    with open("net.json", "w", encoding="utf-8") as file:
        file.write(SMALL)
    code, out, _ = run("--config", "net.json", "--no-train", "--dtype", "float32", "--json", "r.json")
    assert code == 0
    assert report()["environment"]["dtype"] == "float32"


def homework(name="mine.npz", **changes):
    """A gradient as a student writes it, with NumPy alone: softmax regression."""
    rng = np.random.default_rng(0)
    x, y, W, b = rng.normal(size=(6, 4)), rng.integers(0, 3, 6), rng.normal(size=(4, 3)), rng.normal(size=3)
    e = np.exp(x @ W + b)
    dz = (e / e.sum(axis=1, keepdims=True) - np.eye(3)[y]) / 6
    values = {"x": x, "y": y, "W1": W, "b1": b, "dW1": x.T @ dz, "db1": dz.sum(axis=0)}
    for at, change in changes.items():
        values[at] = change(values[at])
    np.savez(name, **values, config='{"head": "multiclass"}')


def test_a_right_gradient_of_ones_own(run):
    homework()
    code, out, err = run("--explain", "mine.npz")
    assert (code, err) == (0, "")
    assert out.startswith("the gradient is right: 2 leaves, 15 elements, float64")


@pytest.mark.slow
def test_a_mistake_of_ones_own_is_explained(run):
    """Σ for the mean: the catalogue has it, with the formula that was meant."""
    homework(dW1=lambda dW: 6 * dW, db1=lambda db: 6 * db)
    code, out, _ = run("--explain", "mine.npz", "--json", "r.json")
    assert code == 1
    assert re.search(r"likely mistake:\n  1\. average-forgotten: .*; meant was .*; explains all of the difference", out)
    assert report()["explanations"][0]["name"] == "average-forgotten"
    homework(db1=lambda db: db[::-1])
    code, out, _ = run("--explain", "mine.npz")
    assert code == 1
    assert "params[0].b is the right one reversed along axis 0" in out
    homework(dW1=lambda dW: np.random.default_rng(1).normal(size=dW.shape))
    code, out, _ = run("--explain", "mine.npz")
    assert code == 1
    assert "no mistake of the catalogue, and no simple relation, explains it" in out


@pytest.mark.slow
def test_a_file_written_from_a_network(run, tmp_path):
    case = make_case(Config(sizes=(3, 7, 6, 4), activation="tanh"), "given")
    _, grads = case.call(faulty(FAULTS["derivative-forgotten"]))
    write_gradient(tmp_path / "net.npz", case, grads)
    code, out, _ = run("--explain", "net.npz")
    assert code == 1
    assert "1. derivative-forgotten: " in out


BAD = {
    "a config that is not JSON": (["--config", "{sizes: 3}"], "--config: is not JSON"),
    "a config that is a list": (["--config", "list.json"], "list.json: is a list: expected an object"),
    "a file that is not there": (["--config", "none.json"], "none.json: No such file or directory"),
    "an unknown field": (["--config", '{"size": [3, 2]}'], "unknown config field 'size': did you mean 'sizes'"),
    "a value out of range": (["--config", '{"sizes": [3, 0]}'], "sizes has a width 0"),
    "an option for one network": (["--weight", "given"], "--weight is for one network: give its --config too"),
    "no examples": (["--config", SMALL, "--examples", "0"], "--examples is 0: expected an integer >= 1"),
    "two kinds at once": (["--config", SMALL, "--explain", "x.npz"], "--explain and --config exclude each other"),
    "a typo in an option": (["--confg", SMALL], "unknown option '--confg': did you mean '--config'"),
    "an unknown precision": (["--dtype", "float8"], "unknown --dtype 'float8'"),
    "a gradient file that is not there": (["--explain", "none.npz"], "none.npz: cannot be read"),
    "a gradient file that is none": (["--explain", "list.json"], "list.json: is no .npz file"),
    "a report that cannot be written": (["--json", "no/r.json"], "--json 'no/r.json' cannot be written"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_one_line(run, name):
    with open("list.json", "w", encoding="utf-8") as file:
        file.write("[1]")
    arguments, message = BAD[name]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("mlpjax: ")
    assert message in err
    assert err.count("\n") == 1
