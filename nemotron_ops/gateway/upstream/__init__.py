"""One llama-server as the gateway sees it.

Each file uses only those below it:

    attempt     one try to get an answer from one llama-server
    connection  connections to llama-server over its unix socket
"""
