"""`guardwatch-gateway`: the composition root and the verbs of the command line.

    exits.py        how a verb ends and speaks
    running.py      `run`: one process, its signals, its end
    composition.py  settings become adapters, adapters become services, services become tasks
    settled.py      what settings mean to single adapters
    signs.py        what readiness and metrics are made of
    accounts.py     `user`, `token`
    inquiry.py      `check`, `route`, `alert-test`, `alarms`, `status`
    evidence.py     `verify`, `export`
    doctor.py       `doctor`

Nothing else imports adapters.
"""
