"""``mlpjax sweep`` as people use it: what it prints and writes, and what it refuses."""

import dataclasses
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import runner, texts_of

import mlpjax
from mlpjax import sweep_command
from mlpjax.options import TrainOptions
from mlpjax.sweep_options import AXES, MOST_NETWORKS, SweepOptions

TINY = ["--data", "own.csv", "--target", "kind", "--hidden", 4, "--lr", 0.01, 0.1, "--dropout", 0, "--epochs", 2]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder that has one data set, own.csv."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    rows = [f"{i % 7 / 3},{i * i % 11},{'näin'[: 2 + i % 2]}" for i in range(50)]
    Path("own.csv").write_text("\n".join(["a,b,kind", *rows]) + "\n", encoding="utf-8")

    return runner(capsys)


def report(name="r.json"):
    return json.loads(Path(name).read_text(encoding="ascii"), parse_constant=pytest.fail)


def swept(run, *arguments):
    """Search, which must work, and return the report."""
    ran = run("sweep", *TINY, *arguments, "--json", "r.json")
    assert ran.code == 0, ran.err
    return report()


# --- what it does --------------------------------------------------------------------------------------------


def test_the_ranking_and_the_best_network(run):
    ran = run("sweep", *TINY, "--hidden", 4, "none", "--seeds", 2, "--json", "r.json", "--save", "m.npz")
    assert ran.code == 0
    assert ran.err == "own.csv: binary of 2 classes, 32 train, 10 test, 8 valid; 4 points, 8 networks\n"
    result = report()
    assert (result["points"], result["networks"], result["interrupted"]) == (4, 8, False)
    trials, best = result["trials"], result["best"]
    losses = [trial["valid_loss"] for trial in trials]
    assert losses == sorted(losses)
    assert [trial["rank"] for trial in trials] == [1, 2, 3, 4]
    for trial in trials:
        values = [one["valid_loss"] for one in trial["runs"]]
        assert trial["valid_loss"] == pytest.approx(np.mean(values))
        assert trial["valid_loss_spread"] == pytest.approx(np.std(values, ddof=1))
        assert [one["seed"] for one in trial["runs"]] == [0, 1]
    assert {(tuple(trial["hidden"]), trial["lr"]) for trial in trials} == {
        (hidden, lr) for hidden in ((4,), ()) for lr in (0.01, 0.1)
    }
    assert best["seed"] == min((one["valid_loss"], one["seed"]) for one in trials[0]["runs"])[1]

    # the table: the axes that vary, mean and spread
    assert re.search(r"rank +┃ hidden ┃ lr +┃ valid loss +┃ valid accuracy +┃ best epoch", ran.out)
    assert "batch_size" not in ran.out
    assert f"{trials[0]['valid_loss']:.4f} ± {trials[0]['valid_loss_spread']:.2g}" in ran.out
    assert "seen for this network only" in ran.out

    # the model file, and its test part
    model = mlpjax.load("m.npz")
    assert model.config.to_dict() == best["config"]
    assert run("evaluate", "m.npz", "--json", "e.json").code == 0
    assert (report("e.json")["loss"], report("e.json")["accuracy"]) == (best["test_loss"], best["test_accuracy"])

    # the command trains the network of the first seed alone
    command = ran.out.splitlines()[-1]
    assert command == best["command"]
    assert run(*shlex.split(command)[1:], "--json", "t.json").code == 0
    alone, first = report("t.json"), trials[0]["runs"][0]
    assert alone["config"] == best["config"]
    assert alone["epoch"] == first["epoch"]
    assert alone["valid_loss"] == pytest.approx(first["valid_loss"], rel=1e-4)


def test_random_points_and_the_same_seed(run, monkeypatch):
    kept = []
    monkeypatch.setattr(sweep_command, "keep_compiled", kept.append)
    rates = ["--lr", 1e-3, 1e-1, "--l2", 0, 1e-6, 1e-2]
    results = []
    for name in ("a", "b"):
        results.append(swept(run, *rates, "--random", 3, "--save", f"{name}.npz", "--compilation-cache", "c"))
    a, b = results
    assert kept == [Path("c")] * 2
    assert a["best"]["command"] == b["best"]["command"]
    assert not re.search("--save|--json|--compilation", a["best"]["command"])
    assert a["trials"] == b["trials"]
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
    assert len({trial["lr"] for trial in a["trials"]}) == 3
    assert all(1e-3 <= trial["lr"] <= 1e-1 for trial in a["trials"])
    assert all(trial["l2"] == 0 or 1e-6 <= trial["l2"] <= 1e-2 for trial in a["trials"])


OPTIONS = {
    "of the data and its order": [
        "--scale", "minmax", "--test-fraction", 0.3, "--valid-fraction", 0.25, "--data-dir", ".", "--no-download",
        "--class-weight", "balanced", "--head", "multiclass", "--compute-dtype", "bfloat16", "--own-order",
    ],
    "of the network": ["--activation", "tanh", "--init", "orthogonal", "--no-bias", "--batch-norm", True, "--l1", 0.01],
    "of the rule": [
        "--optimizer", "momentum", "--convention", "torch", "--schedule", "linear", "--clip", 1, 2,
        "--proximal-l1", 0, 0.01, "--weight-decay", 0.01, "--batch-size", 8,
    ],
}  # fmt: skip
USED = {
    "of the data and its order": {"head": "multiclass", "compute_dtype": "bfloat16"},
    "of the network": {"activation": "tanh", "init": "orthogonal", "bias": False, "batch_norm": True, "l1": 0.01},
    "of the rule": {},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(run, name):
    result = swept(run, *OPTIONS[name], "--epochs", 1)
    assert all(np.isfinite(trial["valid_loss"]) for trial in result["trials"])
    assert {key: result["best"]["config"][key] for key in USED[name]} == USED[name]
    if name == "of the rule":
        expected = {"optimizer": "momentum", "convention": "torch", "schedule": "linear", "weight_decay": 0.01}
        assert all(expected.items() <= trial.items() for trial in result["trials"])
        assert len({(trial["lr"], trial["clip"], trial["proximal_l1"]) for trial in result["trials"]}) == 8
    if name == "of the data and its order":
        assert result["examples"] == {"train": 26, "test": 15, "valid": 9}


def test_stopping_and_ranking_by_the_metric(run):
    ran = run(
        "sweep", *TINY, "--lr", 1e-30, 1e-29, "--epochs", 40, "--patience", 2, "--monitor", "metric", "--top", 1,
        "--seed", 2**40, "--json", "r.json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "1 of 2 points, by validation accuracy" in ran.out
    result = report()
    assert [trial["point"] for trial in result["trials"]] == [0, 1], "equal ones keep their order"
    runs = [one for trial in result["trials"] for one in trial["runs"]]
    assert {(one["seed"], one["epoch"], one["stop_reason"]) for one in runs} == {(2**40, 1, "early stopping")}
    assert f"--seed {2**40}" in result["best"]["command"]


def test_every_option_is_tried_and_explains_itself():
    text = texts_of("cli_sweep", "checkpoint_population")
    source = "".join(map(inspect.getsource, SweepOptions.__mro__[:-1]))
    for field in dataclasses.fields(SweepOptions):
        option = field.name.replace("_", "-")
        assert re.search(rf'"--(no-)?{option}"', text), option
        assert re.search(rf'^    {field.name}: [^\n]*\n    """[A-Za-z]', source, re.MULTILINE), option


def test_the_axes_are_options_of_train():
    options = SweepOptions()
    options.validate()
    single = options.single({name: values[0] for name, values in options.axes().items()})
    assert (single.hidden, single.lr, single.patience) == ((64,), 3e-4, 30)
    fields = {field.name for field in dataclasses.fields(TrainOptions)}
    assert set(AXES) <= fields
    own = {field.name for field in dataclasses.fields(SweepOptions)} - fields
    assert own == {"random", "seeds", "top", "own_order"}


def test_help_is_quick_and_complete():
    code = (
        "import sys; from mlpjax.cli import main\n"
        "try: main(['sweep', '--help'])\n"
        "except SystemExit as end: print('exit', end.code, 'jax' in sys.modules, 'optax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=True)
    out = done.stdout.decode()
    assert out.endswith("exit 0 False False\n")
    for field in dataclasses.fields(SweepOptions):
        assert f"--{field.name.replace('_', '-')}" in out


# --- what goes wrong -----------------------------------------------------------------------------------------

BAD = [
    ("unknown option '--learning-rate'", ["--learning-rate", 1]),
    ("unknown option '--optimiser': did you mean '--optimizer'", ["--optimiser", "adam"]),
    ("unknown --optimizer 'adm': did you mean 'adam'", ["--optimizer", "sgd", "adm"]),
    ("unknown --activation 'tnh': did you mean 'tanh'", ["--activation", "relu", "tnh"]),
    ("unknown --convention 'tourch': did you mean 'torch'", ["--convention", "tourch"]),
    ("parsing --lr: .*'fast'.; see mlpjax sweep --help", ["--lr", 0.1, "fast"]),
    ("unexpected argument 'digits'", ["--own-order", "digits"]),
    ("--hidden is '64,x': expected widths joined by commas", ["--hidden", 32, "64,x"]),
    ("--hidden is '': expected widths", ["--hidden", ""]),
    ("--hidden is 0: expected an integer >= 1", ["--hidden", "8,0"]),
    ("--hidden has 64,32 twice", ["--hidden", "64,32", "8", "64,32"]),
    ("--hidden has none twice", ["--hidden", "none", "none"]),
    ("--lr has 0.1 twice", ["--lr", 0.1, 0.2, 0.1]),
    ("--lr has no value: expected one or more", ["--lr"]),
    ("--lr is 0.0: expected a number > 0", ["--lr", 0.1, 0]),
    ("--l2 is -1.0: expected a number from 0", ["--l2", 0, -1]),
    ("--clip is nan", ["--clip", 1, "nan"]),
    ("dropout rate is 1.5: expected a probability", ["--dropout", 0, 1.5]),
    ("--batch-size is 0", ["--batch-size", 32, 0]),
    ("--epochs is 0", ["--epochs", 0]),
    ("--seeds is 0: expected an integer >= 1", ["--seeds", 0]),
    ("--top is 0: expected an integer >= 1", ["--top", 0]),
    ("--random is 0: expected an integer >= 1", ["--random", 0]),
    ("--patience is 0", ["--patience", 0]),
    ("300 draws gave 2 points, not 3: ask for fewer", ["--lr", 0.1, "--batch-size", 8, 16, "--random", 3]),
    ("2 points of 60000 seeds are 120,000 networks: expected at most 100,000", ["--seeds", 60000]),
    ("100,001 points of 1 seeds are 100,001 networks: .*draw fewer", ["--random", MOST_NETWORKS + 1]),
    ("--valid-fraction is 0: networks are ranked by validation data", ["--valid-fraction", 0]),
    ("--valid-fraction is 1.0", ["--valid-fraction", 1]),
    ("sklearn has no 'adadelta'", ["--optimizer", "adam", "adadelta", "--convention", "torch", "sklearn"]),
    ("--l1 and --proximal-l1 are one penalty", ["--l1", 0, 0.1, "--proximal-l1", 0, 0.1]),
    ("--seed is -1", ["--seed", -1]),
    ("--seed is 9223372036854775807 with --seeds 2", ["--seed", 2**63 - 1, "--seeds", 2]),
    ("--save 'own.csv' cannot be written: it is the file of --data too", ["--save", "own.csv"]),
    ("--json 'm.npz' cannot be written: it is the file of --save too", ["--json", "m.npz"]),
    ("'binary_step' cannot be trained", ["--activation", "relu", "binary_step"]),
    ("has no column 'knd': did you mean 'kind'", ["--target", "knd"]),
    ("--epochs 2000000000 are 4000000000 steps", ["--epochs", 2_000_000_000, "--batch-size", 16]),
    ("holding out 0.99 of 40 examples", ["--valid-fraction", 0.99]),
    ("2000000.* weights, whose training takes .* GB or more", ["--hidden", 4, "2000000,2000000"]),
]


@pytest.mark.parametrize(("message", "more"), BAD, ids=[" ".join(map(str, more)) for _, more in BAD])
def test_what_is_refused(run, message, more):
    before = {path: path.read_bytes() for path in Path().iterdir()}
    files = [] if "--json" in more else ["--json", "r.json"]
    ran = run("sweep", *TINY, "--save", "m.npz", *files, *more)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("mlpjax: ")
    assert len(ran.err.splitlines()) == 1
    assert re.search(message, ran.err), ran.err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_networks_that_diverge(run):
    ran = run("sweep", *TINY, "--lr", 0.01, 1e38, "--json", "r.json", "--save", "m.npz")
    assert ran.code == 0
    assert re.search(r"│ 2 +│ 1e\+38 +│.*│ diverged +│", ran.out)
    assert [trial["problem"] for trial in report()["trials"]] == ["", "diverged"]
    ran = run("sweep", *TINY, "--lr", 1e37, 1e38, "--json", "r.json", "--save", "n.npz")
    assert ran.code == 2
    assert re.match("mlpjax: no network can be ranked: the loss stopped being finite", ran.err.splitlines()[-1])
    assert report()["best"] is None
    assert sorted(os.listdir()) == ["m.npz", "own.csv", "r.json"]


@pytest.mark.parametrize("group", [0, 1, 2])
def test_ctrl_c(run, monkeypatch, group):
    """Before the first group, before its first epoch, and in the second: what was there is ranked and saved."""
    whole = sweep_command.search

    def search(*arguments, callback, **options):
        if group == 0:
            signal.raise_signal(signal.SIGINT)

        def press(progress):
            callback(progress)
            if (progress.group, progress.epoch) == (group, 0):
                signal.raise_signal(signal.SIGINT)

        return whole(*arguments, callback=press, **options)

    monkeypatch.setattr(sweep_command, "search", search)
    ran = run("sweep", *TINY, "--batch-size", 32, 16, "--json", "r.json", "--save", "m.npz")
    assert ran.code == 130
    words = "; the best so far is saved in m.npz" if group == 2 else ""
    assert ran.err.splitlines()[-1] == f"mlpjax: interrupted: {2 * group} of 4 points were begun{words}"
    result = report()
    assert result["interrupted"] is True
    assert len(result["trials"]) == 2 * group
    assert (result["best"] is not None) == (group == 2) == os.path.exists("m.npz")
    assert [trial["problem"] for trial in result["trials"][-1:]] == ["interrupted before epoch 1"][:group]
    assert ("valid loss" in ran.out) == (group > 0)


def test_a_failing_disk_does_not_cost_the_result(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "m.npz")

    monkeypatch.setattr("mlpjax.files.os.replace", full)
    ran = run("sweep", *TINY, "--save", "m.npz")
    assert ran.code == 2
    assert "valid accuracy" in ran.out
    assert "saved" not in ran.out
    assert ran.err.splitlines()[-1] == "mlpjax: m.npz: No space left on device"
    assert os.listdir() == ["own.csv"]
