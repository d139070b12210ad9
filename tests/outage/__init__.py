"""A day without a network at ten times the design rate: `python -m tests.outage virtual`, `python -m tests.outage real`.

Theory of operation. A *hall* of 512 doors lives by a fixed score of beats, sixteen events each, two of them of a
violation; so what an agent must find out is known beforehand, door by door. The link to the server room is cut for 24
hours, then healed, and the books are compared: what the doors did against what the journal says, and what the agent's
store holds against what the journal holds. Nothing lost, nothing doubled, in order, no gap, drained within two minutes,
what happened meanwhile behind the backlog and no later than that; every guard UNKNOWN on the board while nothing can be
known, and right afterwards.

    virtual    the deterministic world: real agent, store, sender, gateway and journal; its clock, network and disks
               (what limits the drain there is said in `virtual`)
    real       processes, mosquitto, Modbus over TCP, fsync on a real disk, a cut link; the hall lives at 100 times the
               speed, so that the day takes 864 s (`real`)

Doors that open on running machines are violations, most of which are over before anybody can be told.
"""
