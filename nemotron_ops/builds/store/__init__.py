"""Finished builds: content-addressed folders, the current one, and what is removed when.

Each file uses only those below it:

    diff          what changes from one build to another: version, options, llama-server's flags, recipes that would
                  break
    options_json  what a build was asked to be, kept in its manifest, so that the next one can be of the same kind
    pruning       old builds and what interrupted ones left, removed
    retention     which builds stay and which may go, and why
    unfinished    what builds that were begun and never finished have left in the store
    store         builds that have proved themselves, and which of them is current
"""
