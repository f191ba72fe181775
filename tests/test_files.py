"""A file is there whole or not at all, whatever goes wrong while it is written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from mlpjax.files import atomic_write


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
