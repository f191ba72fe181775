"""Every check of the lecture passes, here and now; see `mlpjax lecture --check`."""

import pytest

from mlpjax.ledger import load_ledger
from mlpjax.proofs import check_of, prove, prove_trap

LEDGER = load_ledger()
ROWS = [row for row in LEDGER.rows.values() if check_of(row.id) is not None]
# seconds each; the others take tenths
SLOW = {
    "act-leaky-dying", "act-prelu-dalpha", "act-tanh-vs-sigmoid", "act-vanish-experiment", "act-vanish-relu",
    "erm-issue-nonconvex", "init-big-w", "init-glorot", "init-zero-frozen", "mlp1-uat-trained", "norm-bn-faster",
    "norm-bn-objective", "norm-bn-update", "prob-mc-loss", "reg-goal", "reg-l1-grad", "reg-weight-decay",
    "train-dataset", "train-minibatch-unbiased", "train-minibatch-update", "train-second-order", "trap-init-trunc",
    "trap-maxabs", "trap-prob-bce", "trap-where-exp",
}  # fmt: skip


def seconds_apart(entries):
    return [pytest.param(entry, marks=pytest.mark.slow if entry.id in SLOW else ()) for entry in entries]


@pytest.mark.parametrize("row", seconds_apart(ROWS), ids=lambda row: row.id)
def test_row(row):
    outcome = prove(row)
    assert outcome.status == "pass", outcome.why


@pytest.mark.parametrize("trap", seconds_apart(LEDGER.traps.values()), ids=lambda trap: trap.id)
def test_trap(trap):
    outcome = prove_trap(trap)
    assert outcome.status == "pass", outcome.why
