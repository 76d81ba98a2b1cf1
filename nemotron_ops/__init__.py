"""nemotron-ops: from nothing to a Nemotron 3 endpoint that stays up.

The map of the house. Rooms do not import rooms, except through the doors drawn here:

    recipes     TOML -> Recipe -> Plan
    build       llama.cpp: source, toolchain, compile, self-test, store     -> models.synthetic, engine
    models      GGUF files: hub, store, header, tiny synthetic ones
    memory      bytes from a GGUF header; what fits where                   -> models.gguf
    engine      one llama-server, seen from outside
    supervisor  keeps llama-servers running                                 -> engine
    gateway     one OpenAI-compatible door in front of them                 -> supervisor.snapshot
    service     systemd and launchd
    deploy      the same program on other machines, over SSH                -> service.units
    cli         the command line; may use everything, used by nothing

The hall, open to all rooms: `errors`, `progress`, `files`, `paths`, `proc`, `host`, `policy`. Only `cli` and
`ui` print.
"""

__version__ = "0.1.0"
