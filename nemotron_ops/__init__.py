"""nemotron-ops: from nothing to a Nemotron 3 endpoint that stays up.

The map of the house. Rooms do not import rooms, except through the doors drawn here:

    __main__    `python -m nemotron_ops` is the command line
    cli         the command line: words, colours, questions; may use everything, used by nothing
    operations  what the product does, without words or colours              -> every room but cli
    measure     load, numbers and what they mean: speed, quality             -> operations, engine.once
    deploy      the same program on other machines, over SSH                 -> service.spec
    service     systemd and launchd
    gateway     one OpenAI-compatible endpoint in front of the instances     -> supervisor.snapshot
    supervisor  keeps llama-servers running                                  -> engine
    builds      llama.cpp: source, toolchain, compile, self-test, store      -> models.synthetic, engine
    memory      bytes from a GGUF header; what fits where                    -> models.gguf
    models      GGUF files: hub, store, header, tiny synthetic ones
    engine      one llama-server, seen from outside
    studio      the page that people open: chats, models, what runs             -> supervisor.control, proc
    web         search and pages of the web, for tools                       -> recipes.check
    tune        fine-tuning: data, jobs, adapters                             -> models.gguf, synthetic
    sandbox     runs code that is not trusted: walls, sessions, limits
    agent       runs hosted tools between the turns of a model                -> sandbox
    recipes     TOML -> Recipe -> Plan

The ground, open to all rooms:

    host        what this machine is: CPU, memory, GPUs, driver, compilers
    processes   pids, signals, log files, listening sockets, the kernel's OOM killer
    installation  folders, environment, facts and report, as one value
    ui          terminal output: progress bars, tables; only `cli` and `ui` print
    addresses   loopback, wildcard and URLs of hosts and ports
    hub_names   what people write for a model on a hub: names, and addresses of pages and files
    proc        runs other programs to their end
    python_environment  virtual environments from a lock file, for programs that need torch
    paths       where everything lives
    files       writes our own files so that a kill loses none
    policy      numbers that several rooms share: health, restarts
    progress    how a room reports what it does
    errors      one exception root, an exit code for each kind
"""

__version__ = "0.1.0"
