"""The rehearsal of the experiment that is meant for an accelerator."""

import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


@pytest.mark.slow
def test_the_deep_network_of_ciresan_rehearses():
    # a process of its own, in which the script finds its neighbours
    command = [sys.executable, str(EXPERIMENTS / "mnist_ciresan.py"), "--rehearse"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    error = float(done.stdout.split("test error ")[1].split(" %")[0])
    assert error < 10
    assert "claim 10.00 %" in done.stdout
