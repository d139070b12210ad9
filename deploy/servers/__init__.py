"""Getting the real servers that the demo and the tests run: `python3 -m deploy.servers [NAME …]`.

Standard library only, because it runs before (and without) the virtual environment. Every server is looked for first
(`simulators.servers`: environment, PATH, cache) and fetched only when missing, so a second run changes nothing and
takes a moment:

* mosquitto, PostgreSQL, Chromium, a Chinese font, mbpoll and strace are Debian packages (`debian`): installed when run as
  root, without starting any service, else unpacked into the cache;
* InfluxDB 2 is in no package registry as a binary: it is copied from its container image or built (`influxdb`, with
  the compilers of `toolchain`).

One server's failure is reported with its mend and does not keep the others from being fetched; the exit status is
then 1.
"""
