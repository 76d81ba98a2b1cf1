"""What this machine lacks for a build, and how to get it.

Each file uses only those below it:

    network_check  what can be reached from here: llama.cpp's repository, the package registry, the model hub
    diagnosis      what the main job needs of a machine, what is missing, and the command that fixes it
"""
