"""Ctrl-C waits for a safe moment; a second one does not."""

import signal
import threading

import jax
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax.interrupt import deferred_interrupt, late_interrupt


@pytest.fixture(autouse=True)
def _default_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def test_the_first_is_an_event_and_the_second_an_exception():
    with deferred_interrupt() as interrupted:
        assert not interrupted.is_set()
        ctrl_c()
        assert interrupted.is_set()
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()


def test_inside_itself_there_is_one_event():
    with deferred_interrupt() as outer:
        with deferred_interrupt() as inner:
            ctrl_c()
        assert inner is outer
        assert outer.is_set()


def test_late_interrupt_raises_after_the_body():
    done = []
    with pytest.raises(KeyboardInterrupt), late_interrupt():  # noqa: PT012
        ctrl_c()
        done.append(True)
    assert done


def test_the_handler_of_somebody_else_stays():
    seen = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    with deferred_interrupt() as interrupted:
        ctrl_c()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert seen == [signal.SIGINT]
    assert not interrupted.is_set()


def test_another_thread_changes_nothing():
    handlers = []

    def body():
        with deferred_interrupt():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def test_ctrl_c_while_fit_compiles_leaves_a_usable_result():
    def interrupted_backward(*args, **kwargs):
        ctrl_c()  # runs once, while tracing
        return mlpjax.backward(*args, **kwargs)

    config = mlpjax.Config(sizes=(2, 3, 1), head="binary")
    xor = mlpjax.Batch(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0]))
    result = mlpjax.fit(
        config, optax.sgd(0.1), xor, epochs=9, batch_size=4, key=jax.random.key(0), grad_fn=interrupted_backward
    )
    assert result.stop_reason == "interrupted"
    assert np.isfinite(mlpjax.evaluate(config, result.params, result.state, xor)["loss"])
