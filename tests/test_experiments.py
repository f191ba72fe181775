"""Experiments that other tests do not run: each in its shortest form, which meets its claims and writes nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


def run(name, *options):
    """Run an experiment in a process of its own, in which the script finds its neighbours."""
    command = [sys.executable, str(EXPERIMENTS / f"{name}.py"), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_deep_network_of_ciresan_rehearses():
    out = run("mnist_ciresan", "--rehearse")
    error = float(out.split("test error ")[1].split(" %")[0])
    assert error < 10
    assert "claim 10.00 %" in out


@pytest.mark.slow
def test_killed_damaged_and_full():
    assert "MISSED" not in run("resume", "--kills", 1, "--damages", 20, "--no-write")


@pytest.mark.slow
def test_changed_files():
    assert "csv, seeds" in run("fuzz", "--minutes", 0.05, "--formats", "csv", "config")


@pytest.mark.slow
def test_two_sick_networks():
    out = run("doctor", "even", "--only", "zero init", "--processes", 1)
    assert "even: 2 runs, precision 100.0%, recall 100.0%" in out


@pytest.mark.slow
def test_the_same_run_twice():
    assert "all claims are met" in run("reproducibility", "--quick")
