"""Checkpoints of arrays that are spread over devices, by orbax, under a SHA-256 of every file that it writes.

Orbax writes each shard from where it lies and reads it to where it is wanted, but loads arrays whose files were changed
without a word. Here a manifest lists the files with their digests, and the arrays; it is written last, so that a folder
without one was not finished. Needs the extra ``mlpjax[orbax]``.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax

from mlpjax.errors import CheckpointError, InputError
from mlpjax.files import atomic_write, open_file
from mlpjax.run_identity import first_difference
from mlpjax.snapshots import described

MANIFEST = "mlpjax-manifest.json"
_FORMAT = "mlpjax sharded checkpoint, version 1"
_BLOCK = 2**22


def save_sharded(folder: str | os.PathLike[str], tree: Any) -> None:
    """Write a tree of arrays, each shard from its device, into a new folder.

    In a run of several processes all call this; process 0 writes the manifest, when the others may have gone on.

    Args:
        folder: does not exist yet.
        tree: any pytree of arrays, such as a `mlpjax.TrainState`; typed keys are arrays too.

    Raises:
        CheckpointError: if the folder exists, or cannot be written.
        InputError: without orbax.

    >>> import tempfile
    >>> tree = {"W": jax.numpy.arange(3.0)}
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     save_sharded(f"{parent}/saved", tree)
    ...     load_sharded(f"{parent}/saved", tree)
    {'W': Array([0., 1., 2.], dtype=float32)}
    """
    path = _absolute(folder)
    if jax.process_index() == 0 and path.exists():
        unfinished = "" if (path / MANIFEST).exists() else ", or remove this one, which was not finished"
        raise CheckpointError(f"{path} exists already: give a new folder{unfinished}")
    try:
        _orbax().save(path, tree)
        if jax.process_index() == 0:
            text = json.dumps({"format": _FORMAT, "arrays": described(tree), "files": _files(path)})
            atomic_write(path / MANIFEST, _signed(text.encode()))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from error


def load_sharded(folder: str | os.PathLike[str], like: Any) -> Any:
    """Read what `save_sharded` wrote, after checking every byte of every file.

    Args:
        folder: what was written.
        like: a tree with the paths, shapes and dtypes of what was saved: arrays, or `jax.ShapeDtypeStruct` with the
            sharding that is wanted, on as many devices as there are now; by default on the first.

    Raises:
        CheckpointError: if a file is damaged, missing or too many, or the arrays are not those of ``like``.
        InputError: without orbax.
    """
    path = _absolute(folder)
    manifest = _read_manifest(path)
    difference = first_difference(manifest["files"], _files(path), "the folder")
    if difference is not None:
        raise CheckpointError(f"{path}: damaged: {difference}; use another checkpoint")
    if difference := first_difference(manifest["arrays"], described(like), "what is asked for"):
        raise CheckpointError(f"{path}: {difference}")
    # orbax casts without a word what has another dtype, and names no error for what it cannot read
    try:
        return _orbax().load(path, jax.tree.map(_wanted, like))
    except Exception as error:
        raise CheckpointError(f"{path}: orbax cannot read it: {str(error).splitlines()[0]}") from error


def _wanted(leaf: Any) -> Any:
    # without a sharding orbax would take that of the devices which saved it
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or here)


def _orbax() -> Any:
    try:
        from orbax.checkpoint import v1
    except ImportError:
        raise InputError("sharded checkpoints need orbax: install mlpjax[orbax]") from None
    return v1


def _absolute(folder: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(folder))


def _files(path: Path) -> dict[str, list[Any]]:
    """Size and digest of every file in a folder, by its path in it."""
    found: dict[str, list[Any]] = {}
    for file in sorted(path.rglob("*")):
        if file.is_symlink():
            raise CheckpointError(f"{file} is a link: expected files only")
        if file.is_file() and file != path / MANIFEST:
            digest = hashlib.sha256()
            with open(file, "rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
            found[str(file.relative_to(path))] = [file.stat().st_size, digest.hexdigest()]
    return found


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        with open_file(path / MANIFEST) as file:
            content = file.read()
    except OSError:
        raise CheckpointError(f"{path} has no {MANIFEST}: not a sharded checkpoint, or one not finished") from None
    text = content.partition(b"\n")[0]
    if content != _signed(text):
        raise CheckpointError(f"{path / MANIFEST}: damaged: its bytes do not match its SHA-256; use another checkpoint")
    manifest = json.loads(text)
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(f"{path / MANIFEST}: format {manifest.get('format')!r}: expected {_FORMAT!r}")
    return manifest


def _signed(text: bytes) -> bytes:
    """A line of JSON, and its digest."""
    return text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n"
