"""One llama-server, seen from outside: its flags, its health, how it dies.

Each file uses only those below it:

    once         runs one llama-server during a `with` block: for self-tests and measurements
    args         the command lines of llama-server and llama-cli, whole
    client       HTTP to one llama-server, over its unix socket or a base URL
    deaths       finds why a llama-server ended: one cause and one next step from exit code and last log lines
    death_table  patterns of llama-server's log, each with the cause of death and the next step
    env          the environment of a llama-server: scrubbed, with a home of its own
    flags        which flags a llama.cpp build knows, and which of them may be passed through
    flag_lists   the lists behind `flags.classify`: flags that are allowed, set by us, or refused with a reason
    health       reads `/health`, `/metrics` and `/slots` of a llama-server
"""
