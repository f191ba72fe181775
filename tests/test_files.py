"""A file is there whole or not at all, whatever goes wrong while it is written; what is read is a file, and ends."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import jax
import pytest

import mlpjax
from mlpjax import sealed
from mlpjax.archives import open_npz
from mlpjax.audit_command import MOST_CONFIG_BYTES, _read_config
from mlpjax.certificate_file import read_certificate
from mlpjax.checkpoint import read_checkpoint
from mlpjax.data import load_dataset
from mlpjax.disk import DiskData
from mlpjax.errors import ConfigError, ModelFileError
from mlpjax.files import atomic_write, open_file
from mlpjax.idx import read_idx

READERS = {
    "csv": load_dataset,
    "npz": load_dataset,
    "archive": lambda path: open_npz(path).__enter__(),
    "idx": read_idx,
    "model": mlpjax.load,
    "checkpoint": read_checkpoint,
    "replay": mlpjax.replay,
    "certificate": read_certificate,
    "config": _read_config,
    "disk": lambda path: DiskData(path, path),
}


def test_writing_and_writing_over(tmp_path):
    path = tmp_path / "ä file.bin"
    atomic_write(path, b"old")
    atomic_write(str(path), b"new, and longer")
    assert path.read_bytes() == b"new, and longer"
    assert os.listdir(tmp_path) == ["ä file.bin"]


def test_a_path_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atomic_write("here", b"")
    assert (tmp_path / "here").read_bytes() == b""


def test_the_longest_name_that_the_system_allows(tmp_path):
    path = tmp_path / ("x" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    atomic_write(path, b"whole")
    assert path.read_bytes() == b"whole"


@pytest.mark.parametrize("step", ["os.replace", "os.fsync", "os.fdopen", "secrets.token_hex"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*args, **kwargs):
        if step == "os.fdopen":
            os.close(args[0])
        raise error

    monkeypatch.setattr(f"mlpjax.files.{step}", fail)
    with pytest.raises(type(error)):
        atomic_write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits of this kind")
def test_a_disk_that_fills_up(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = (
        "import resource, sys; from mlpjax.files import atomic_write;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "atomic_write(sys.argv[1], bytes(5000))"
    )
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert "OSError: [Errno 27]" in result.stderr
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_the_permissions_are_those_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        atomic_write(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_a_link_is_followed(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes with names")
def test_what_is_no_file_is_not_replaced(tmp_path):
    # as /dev/null would be, for a superuser
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match="is not a regular file"):
            atomic_write(tmp_path / name, b"")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "no" / "file", b"")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes with names")
@pytest.mark.parametrize("kind", ["pipe", "folder", "missing"])
@pytest.mark.parametrize("name", READERS)
def test_readers_refuse_what_is_no_file(tmp_path, name, kind):
    """A pipe that nobody writes to would be waited for: none of them may open it."""
    path = str(tmp_path / f"it.{name}")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        os.mkdir(path)
    expected = {"pipe": "is not a regular file", "folder": "Is a directory", "missing": "No such file"}[kind]
    with pytest.raises((OSError, mlpjax.InputError), match=expected) as refusal:
        READERS[name](path)
    assert path in str(refusal.value)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="does not list what is open")
def test_what_is_refused_is_closed():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match="is not a regular file"):
            open_file(os.devnull)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_model_file_that_memory_cannot_hold(tmp_path, monkeypatch):
    """A file with holes has any size on a small disk; one that ends as a model file does is told by its size."""
    path = tmp_path / "huge.npz"
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ModelFileError, match=r"does not end with a digest"):
        mlpjax.load(path)
    with open(path, "ab") as file:
        file.write(b"mlpjax-sha256:" + b"0" * 64)
    with pytest.raises(ModelFileError, match=r"has 1,100 GB, of which two copies are needed: this machine has"):
        mlpjax.load(path)
    # where nobody knows how much memory there is, small files are read
    monkeypatch.setattr(sealed, "machine_bytes", lambda: None)
    config = mlpjax.Config(sizes=(1, 1), head="regression")
    mlpjax.save(tmp_path / "m.npz", config, *mlpjax.init(config, jax.random.key(0)))
    assert mlpjax.load(tmp_path / "m.npz").config == config


def test_a_config_that_is_too_long(tmp_path):
    path = tmp_path / "config.json"
    # cut in the middle of a letter, it is too long all the same
    path.write_text(" " * (MOST_CONFIG_BYTES - 1) + "é" * 2, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config.json: has more than 1,048,576 bytes"):
        _read_config(str(path))
