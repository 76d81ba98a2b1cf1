"""Runs code that is not trusted: walls, sessions, limits. Uses no other room.

A call goes through these files, each of which uses only those below it:

    server       one session in a process of its own, for `tools run --session`
    open         chooses a backend that has held its attacks, and opens a session on it
    selftest     eight attacks on a backend of this very machine, with a kept verdict
    monty        the limited interpreter: the same calls, without processes of the code's
    program      a program that keeps its own stdin and stdout, behind the same wall: an MCP server
    session      one sandbox: calls, limits, files, its end
    launch       starts the processes of one sandbox
    collect      files out of a work folder that is hostile
    watch        memory, processes and disk of a running sandbox
    remove       removes a work folder at any depth
    reap         lists and ends the processes of one sandbox
    probe        what this machine has for a wall
    choose       facts -> backends in order, with the reason why each cannot be used
    toolbox      a content-addressed virtual environment, bound read-only
    interpreter  which Python runs inside, and the folders that it needs
    kernel       runs inside: applies limits and walls to itself, then runs code
    program_inside  runs inside: sets limits, becomes the sandbox's user, starts the program
    enabled      which tools the operator has allowed
    bwrap        the whole command line of bubblewrap
    seatbelt     the profile of macOS
    landlock     rules of the Landlock wall, by the kernel's version of it
    filter       seccomp filter as BPF bytes
    syscalls     numbers of system calls, x86-64 and arm64
    output       bounded text, without control characters and template tokens
    outcome      what one call gives
    limits       bounds of one sandbox
"""
