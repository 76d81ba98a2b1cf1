"""No build is trusted before it has answered: the self-test and what it leaves behind.

Each file uses only those below it:

    selftest_here    builds tested on this machine: on the device that they are for if it is here, else on the CPU
    selftest         the proof: a fresh binary must say known sentences before it is trusted
    selftest_device  whether the device that a build is for is in this machine, so that it can be tested there
    proofs           what a fresh binary must show before it is trusted, and what its failures mean
"""
