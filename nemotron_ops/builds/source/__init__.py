"""Gets llama.cpp's source: git, a registry, a folder or an archive.

Each file uses only those below it:

    source  finds, fetches, verifies and unpacks llama.cpp's source
    git     fetches one commit of a git repository, shallow and verified
    order   the order in which sources are tried, and what is known of them without the network
"""
