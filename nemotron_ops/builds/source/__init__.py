"""Where the source of llama.cpp comes from: git, a registry, a folder or an archive.

Each file uses only those below it:

    source  llama.cpp's source on this machine: found, fetched, proven, unpacked
    git     llama.cpp from a git repository: one commit, shallow, verified
    order   which sources to try, in which order, and what is known of them before asking anyone
"""
