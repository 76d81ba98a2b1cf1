"""Configures, compiles and installs llama.cpp. cmake, ninja, disk.

Each file uses only those below it:

    compiling   runs cmake and ninja, with progress, a log and the relevant lines of a failure
    budget      one budget of jobs for all builds of a store: a GNU make job server for ninja
    installing  copies programs and their libraries out of the compile folder
    ninja       parses ninja's output and log: progress, remaining time, failures
"""
