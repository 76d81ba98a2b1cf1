"""Configures, compiles and installs llama.cpp. cmake, ninja, disk.

Each file uses only those below it:

    compiling   configure and compile, with progress, a log and the lines that matter when it fails
    budget      one budget of jobs for all builds of a store: a GNU make job server that ninja takes its jobs from
    installing  what a build keeps of what was compiled: programs, and the libraries that they look for beside them
    ninja       ninja's lines and log, turned into progress, an honest estimate and the lines that matter
"""
