"""Sharded checkpoints: saved on some devices, loaded on others, and no damage gives numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax import CheckpointError, TrainState
from mlpjax.sharded import MANIFEST, load_sharded, save_sharded

CONFIG = mlpjax.Config(sizes=(4, 6, 3), batch_norm=True)


def train_state():
    params, state = mlpjax.init(CONFIG, jax.random.key(0))
    moments = optax.adam(0.1, mu_dtype=jnp.bfloat16).init(params)
    return TrainState(params, state, (moments, jax.random.key(4)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder, to be copied before it is damaged."""
    folder = tmp_path_factory.mktemp("sharded") / "saved"
    save_sharded(folder, train_state())
    return folder


def raw(leaf):
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf).tobytes()


def test_what_was_saved_comes_back(saved):
    tree = train_state()
    got = load_sharded(saved, jax.eval_shape(train_state))
    assert jax.tree.structure(got) == jax.tree.structure(tree)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(tree), strict=True):
        assert a.dtype == b.dtype
        assert raw(a) == raw(b)


def test_every_damage_is_refused(saved, tmp_path):
    rng = np.random.default_rng(0)
    files = sorted(path.relative_to(saved) for path in saved.rglob("*") if path.is_file())
    assert Path(MANIFEST) in files
    for number, name in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(saved, folder)
        content = bytearray((folder / name).read_bytes())
        for damage in ("flip", "cut", "delete"):
            if damage == "delete":
                (folder / name).unlink()
            elif not content:
                continue
            elif damage == "flip":
                changed = bytearray(content)
                changed[rng.integers(len(content))] ^= 1 << rng.integers(8)
                (folder / name).write_bytes(changed)
            else:
                (folder / name).write_bytes(content[:-1])
            with pytest.raises(CheckpointError, match=r"damaged|not finished"):
                load_sharded(folder, train_state())


def test_errors(saved, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="exists already"):
        save_sharded(saved, {"a": jnp.ones(2)})
    shutil.copytree(saved, tmp_path / "more")
    (tmp_path / "more" / "new").write_text("")
    with pytest.raises(CheckpointError, match="new is absent in it"):
        load_sharded(tmp_path / "more", train_state())
    shutil.copytree(saved, tmp_path / "linked")
    (tmp_path / "linked" / "link").symlink_to(saved / MANIFEST)
    with pytest.raises(CheckpointError, match="is a link"):
        load_sharded(tmp_path / "linked", train_state())
    other = train_state()._replace(opt_state=(optax.adam(0.1).init(train_state().params), jax.random.key(4)))
    with pytest.raises(CheckpointError, match=r"mu\[0\].W is \[\[4, 6\], 'bfloat16'\] in it, .*'float32'\] in what is"):
        load_sharded(saved, other)
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(mlpjax.InputError, match=r"install mlpjax\[orbax\]"):
        save_sharded(tmp_path / "none", {})


PROGRAM = """
import sys, jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from mlpjax.sharded import load_sharded, save_sharded
n = len(jax.devices())
mesh = jax.make_mesh((n,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
split = NamedSharding(mesh, P("x"))
whole = np.arange(32.0, dtype=np.float32).reshape(8, 4)
if sys.argv[1] == "save":
    save_sharded(sys.argv[2], {"W": jax.device_put(whole, split)})
else:
    W = load_sharded(sys.argv[2], {"W": jax.ShapeDtypeStruct(whole.shape, whole.dtype, sharding=split)})["W"]
    assert W.sharding == split and len(W.addressable_shards) == n
    assert (np.asarray(W) == whole).all()
print(n)
"""


@pytest.mark.slow
def test_from_four_devices_to_two(tmp_path):
    for what, devices in (("save", 4), ("load", 2)):
        flags = f"--xla_force_host_platform_device_count={devices}"
        command = [sys.executable, "-c", PROGRAM, what, str(tmp_path / "saved")]
        environment = {**os.environ, "XLA_FLAGS": flags}
        ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        assert ran.stdout == f"{devices}\n"
