"""The lecture, row by row: `ledger.toml` says what it holds, the modules here prove it, one per part of a section.

The check of row ``act-tanh-deriv`` is the function ``act_tanh_deriv``. It takes no argument, runs in float64, and
returns the `mlpjax.claims.Claim`s that it found to hold or not.
"""
