"""Benchmarks: measured side by side in one run, never asserted by tests.

scenarios.py      what is asked: the requests, and the wrk script that sends them
systems.py        who answers: this gateway and the proxies it is compared with; configurations.py has their files
surroundings.py   what all of them stand on: upstream, tokens, PostgreSQL
processes.py      starting, pinning, processor time and memory
checks.py         whether a system's answers are right, before its rounds count
rounds.py         interleaved rounds of wrk
lookups.py        the near cache with many principals, in process
websockets.py     idle memory, messages, handshakes; peers.py has both ends of the sockets
report.py         medians, ratios and Markdown, pure; plot.py the picture

python -m benchmarks --help
"""
