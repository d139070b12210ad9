"""The journal in SQL: SQLite for one gateway, PostgreSQL where several share it.

Theory of operation. One thread owns the writing connection (`journal.SqlJournal`); every change is one transaction of
it, handed around as a `SqlRecording`: the journal entry, the rows that folds derive from it, the rows that services
keep. SQLite runs in WAL with `synchronous=FULL` (read back, not believed) and takes its lock at BEGIN, so that no
read-then-write is ever lost; reads go through a second, read-only engine and never wait for the writer.

    schema.py       MetaData and the tables of journal and streams; tables.py imports all that declare some
    engine.py       writing and reading engines for both databases
    entries.py      rows of the journal table as entries again
    folding.py      folds at start: snapshots, and the entries after them
    failures.py     what an error of the database means: nothing was stored, or nobody knows
    journal.py      SqlJournal: the writer thread, commit → adopt → listeners
    lease.py        which of several gateways on one PostgreSQL leads
    recording.py    SqlRecording: one transaction, made of row mixins
    stream_rows.py, intake_rows.py   rows of streams and gaps; of certificates, presence, quarantine
    chain_check.py  the evidence chain over the whole journal, for `verify`

To add rows of your own:

1. Declare tables in a module of your own (`alarm_tables.py`) on `schema.METADATA`, with `schema.POSITION` and friends
   as column types: UTC as epoch milliseconds, bytes as `LargeBinary`, JSON as text. Import that module in `tables.py`,
   which is what migrations compare with.
2. Write a mixin (`alarm_rows.py`): `class SqlAlarmRows(RowsBase)`, methods using `self._connection` (a Core
   `Connection` inside the writer's transaction; never commit it). Add it to the bases of `SqlRecording` in
   `recording.py`, and its protocol to `Recording` in `gateway/ports.py`.
3. Reads outside the writer: a class that takes the read `Engine` (`SqlJournal.readers`) and opens one short
   connection per call; blocking, so the API calls it in a thread.
"""
