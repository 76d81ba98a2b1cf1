"""Finished builds: content-addressed folders, the current one, retention.

Each file uses only those below it:

    diff          compares two builds: version, options, llama-server's flags, and recipes that would break
    options_json  build options in a manifest, from which an upgrade takes its own
    pruning       removes old builds and leftovers, and keeps the list of pinned builds
    retention     decides which builds are kept and which may be removed, and why
    unfinished    finds and removes what interrupted builds left in the store
    store         the store of self-tested builds, and the pointer to the current one
    build_lock    the lock that a process holds while it builds or changes one build
"""
