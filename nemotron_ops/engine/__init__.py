"""One llama-server, seen from outside: its flags, its health, how it dies.

Each file uses only those below it:

    once         one llama-server for as long as a `with` block lasts: for self-tests and measurements
    args         the command lines of llama-server and llama-cli, whole
    client       HTTP to one llama-server, over its unix socket or a base URL
    deaths       why a llama-server ended: its exit code and last log lines, made into one cause and one next step
    death_table  what llama-server says when it dies: patterns of its log, the cause each one means, and the next step
    env          the environment a llama-server gets: scrubbed, with a home of its own
    flags        which flags a llama.cpp build knows, and which of them may be passed through
    flag_lists   the lists behind `flags.classify`: what may be passed to llama-server, what is ours, what is refused
                 and why
    health       what llama-server says about itself: `/health`, `/metrics`, `/slots`, made into facts
"""
