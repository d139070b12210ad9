"""The journal's half of a gateway as a process: `python -m tests.minimal_gateway URL PORT`.

Broker, ingest, presence, alarm book and journal, without API or alerting: what the delivery tests kill and restart.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from gateway.adapters.clock_system import SystemClock
from gateway.adapters.intake_paho import BrokerAccess, PahoIntake
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.book import AlarmBook
from gateway.domain.findings import OpenFindings
from gateway.services.ingest import Ingest
from gateway.services.presence import PresenceWatch


async def run(url: str, port: int) -> None:
    """Run until SIGTERM."""
    clock, findings = SystemClock(), OpenFindings()
    journal = await SqlJournal.open(url, clock, {"findings": findings, "book": AlarmBook()})
    clock.not_before(journal.last_recorded_ms)
    intake = PahoIntake(BrokerAccess("127.0.0.1", port, "gateway"))
    presence = PresenceWatch(journal, clock, findings)
    ingest = Ingest(journal, intake, clock, findings, presence)
    tasks = [asyncio.create_task(work) for work in (ingest.run(), ingest.watch(), presence.run())]
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, lambda: [task.cancel() for task in tasks])
    intake.open()
    print("running", flush=True)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await intake.close()
    await journal.close()
    failures = [result for result in results if not isinstance(result, asyncio.CancelledError)]
    if failures:
        raise ExceptionGroup("gateway", [item for item in failures if isinstance(item, Exception)])


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2])))
