"""What is written down so that the next supervisor finds its children.

Each file uses only those below it:

    leftovers  stopping what a dead supervisor left behind, without starting a new one
    adopt      finding again what an earlier supervisor left running
    lock       one supervisor per state directory
    record     what is written down about each process, so that a later supervisor can find it again
"""
