"""Self-tests a build before it is used.

Each file uses only those below it:

    selftest_here    self-tests builds on this machine: on their own device if it is here, else on the CPU
    selftest         the self-test: a new binary must give known answers before it is used
    selftest_device  decides whether this machine has the device that a build was made for
    proofs           the checks of the self-test, and what their failures mean
"""
