"""Finds what this machine lacks for a build, and the commands that install it.

Each file uses only those below it:

    network_check  checks disk, store and network: llama.cpp's repository, the package registry, the model hub
    diagnosis      decides what is missing for a build, and names the command that fixes it
"""
