"""Options of the compiler that a version may lack, and compiled programs that are kept."""

import os
import stat
import subprocess
import sys

import pytest

from mlpjax.compilation_cache import keep_compiled
from mlpjax.compiling import QUICK, compiler_options
from mlpjax.errors import ConfigError


def test_options_that_this_version_knows():
    assert compiler_options((*QUICK, ("xla_no_such_option", 1))) == dict(QUICK)


def train(folder):
    command = (sys.executable, "-m", "mlpjax", "train", "--data", "xor_gate", "--hidden", "4", "--epochs", "2")
    done = subprocess.run(
        (*command, "--test-fraction", "0.5", "--compilation-cache", str(folder)),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1), done.stderr  # the data, and no warning
    return [line for line in done.stdout.splitlines() if "seconds" not in line]


@pytest.mark.slow
def test_programs_are_kept(tmp_path):
    """The second process writes no program, and says the same."""
    first = train(tmp_path / "cache")
    (mine,) = (tmp_path / "cache").iterdir()
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    kept = {path.name: path.read_bytes() for path in mine.iterdir() if path.name.endswith("-cache")}
    assert len(kept) > 2
    assert train(tmp_path / "cache") == first
    assert {path.name: path.read_bytes() for path in mine.iterdir() if path.name.endswith("-cache")} == kept


def test_a_folder_that_is_not_private(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=r"others can write to it.*chmod 700"):
        keep_compiled(tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="is no folder"):
        keep_compiled(file)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="a system without owners of files")
def test_a_folder_of_somebody_else(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="belongs to somebody else"):
        keep_compiled(tmp_path)
