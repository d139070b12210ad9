"""The published language between agent and gateway, version 1: owned by the producer, standard library only.

`event` says what an agent can state, `codec` turns it into bytes and back (total: any bytes become a value),
`chain` links and signs it, `sealed` checks a link by its bytes, `heads` say how far a chain had got, `flaw` names what
was done to one, `topics` names where events travel, `status` holds what travels beside the stream (health, ack, guard
state, birth). The golden vectors under `tests/contract/golden/v1` are immutable: a gateway
must read every version ever shipped. Nothing here does I/O, reads a clock or imports a third party.
"""
