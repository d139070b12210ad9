"""The agent at work: loops around the pure core, one `TaskGroup`, one owner per resource.

    poll LINK ──▶ inbox ──▶ pump ──commit──▶ store (a thread)
      one per URL           │  └─ after the commit: guard states ─▶ desk
                            └─ committed events ─▶ delivery ─▶ uplink ⇄ broker
    beat: health, refresh     clock watch     watchdog: pings only while every loop advances

Nothing here decides anything about guards, rules or the protocol: it waits, calls the core with the time, commits
what it says and sends what the sender names. An exception in any loop ends the process, which is started again
(crash-only); what is committed is never lost by that.
"""
