"""HAProxy in front of several targets.

Each file uses only those below it:

    haproxy  HAProxy's runtime API, and its service on this machine
    config   renders HAProxy's configuration, and reads its state
"""
