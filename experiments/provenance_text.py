"""The text of the program that `mlpjax.fit` compiles, as SHA-256: of no option, so that it must not know of any."""

import contextlib
import hashlib
import sys

import jax
import numpy as np
import optax

import mlpjax
from mlpjax.chunks import Chunk, Run
from mlpjax.step import run_chunk


class Lowered(Exception):
    """The text was taken: nothing needs to be compiled."""


def program_text() -> str:
    """What the chunks of a run are compiled from."""
    texts = []
    compile_ = Run.compile

    def lower(run: Run, train_state: mlpjax.TrainState) -> None:
        nothing = Chunk(0, 0, np.full((run.chunk, run.batch_size), -1, np.int32), run.data)
        texts.append(run_chunk.lower(*run._arguments(train_state, nothing), **run.static).as_text())
        raise Lowered

    rng = np.random.default_rng(0)
    data = mlpjax.Batch(rng.normal(size=(20, 4)), rng.integers(0, 3, 20))
    config = mlpjax.Config(sizes=(4, 9, 7, 3), activation=("relu", "prelu"), batch_norm=True, dropout=0.2, l2=0.01)
    Run.compile = lower
    try:
        with contextlib.suppress(Lowered):
            mlpjax.fit(config, optax.adam(1e-2), data, epochs=2, batch_size=6, key=jax.random.key(0))
    finally:
        Run.compile = compile_
    return texts[0]


def text_hash() -> str:
    """SHA-256 of the text."""
    return hashlib.sha256(program_text().encode()).hexdigest()


if __name__ == "__main__":
    print(text_hash())
    sys.exit(int("mlpjax.provenance" in sys.modules))
