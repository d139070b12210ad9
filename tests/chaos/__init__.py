"""Real chaos on the whole real plant, and the accounts afterwards: `python -m tests.chaos`.

Theory of operation. A *round* is one plant of real processes (stand-in plant, broker, agent, gateway, webhook sink)
for some minutes: a door opens and closes on a running machine, while faults drawn from a seed strike, overlap and
heal; at the end everything is healed and drained, and the books are compared. Rounds run side by side, each in a
process of its own.

    door ──▶ stand-in plant ──Modbus──▶ agent ──MQTT──▶ broker ──▶ gateway ──▶ webhook, InfluxDB
                   │ served responses      │ its store                │ its journal, REST       │
                   └────────────┬──────────┴──────────────┬───────────┴─────────────────────────┘
                             oracle: what had to be raised    accounting: lost, unexpected, duplicated, recovered

What is judged strictly: that every event committed by an agent is journaled once, in order, and that every door that
an agent had to find open is raised once, cleared once and told. What depends on the machine's speed (recovery times,
latencies) is measured and printed.

The accounting is that of Jepsen's `total-queue` checker; that it is kept only after a full drain, too.
"""
