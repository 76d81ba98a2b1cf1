"""Sends one request to one llama-server.

Each file uses only those below it:

    attempt     sends one request and receives its response
    connection  connects to llama-server over its unix socket, and reuses connections
"""
