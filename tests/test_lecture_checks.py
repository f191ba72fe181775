"""Every check of the lecture passes, here and now; see `mlpjax lecture --check`."""

import pytest

from mlpjax.ledger import load_ledger
from mlpjax.proofs import check_of, prove, prove_trap

LEDGER = load_ledger()
ROWS = [row for row in LEDGER.rows.values() if check_of(row.id) is not None]
# minutes in all; the modules behind them have tests of their own
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_row(row):
    outcome = prove(row)
    assert outcome.status == "pass", outcome.why


@pytest.mark.parametrize("trap", LEDGER.traps.values(), ids=lambda trap: trap.id)
def test_trap(trap):
    outcome = prove_trap(trap)
    assert outcome.status == "pass", outcome.why
