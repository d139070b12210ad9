"""How many wrong values the agent's links believe: the real framing and link code against every fault, in virtual time.

`python -m tests.faults --replies 1000000 --seed 1` runs each framing (Modbus/TCP, RTU over TCP, a serial line) until its
slaves have sent that many replies in all, and prints what was believed. Nothing but the sockets is replaced: a link
gets transports that end in `line.FaultyLine`, on the event loop of the simulation, where waiting costs nothing.

    truth.py      what a register holds at a moment: its own unit, table, address and generation, so that every
                  believed value says where and when it came from
    line.py       slaves that answer in order, and everything that happens to their replies on the way
    campaign.py   one framing: reads, judges each outcome, and holds the engine to its bound on unknown time

What no protocol can tell apart is not generated, and listed here so that nobody takes the zero for more than it is:

- an RTU frame whose bits flipped so that its CRC is right again (one in 65 536 garbled frames);
- flipped data bits in Modbus/TCP, which has only TCP's checksum;
- the doubled reply of one unit, function and length, arriving just while another such request waits (over RTU framing;
  the planner gives the requests of a device different lengths for this reason);
- a slave, or a gateway box answering from its memory, that tells an old value in good form: the heartbeat's business.
"""
