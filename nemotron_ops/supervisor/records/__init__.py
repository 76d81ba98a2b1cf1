"""Records of processes, by which the next supervisor finds its children.

Each file uses only those below it:

    leftovers  stops the processes that a dead supervisor left behind, without a new supervisor
    adopt      finds the processes that an earlier supervisor left running
    strays     finds processes of ours that no record names
    lock       one supervisor per state directory
    record     one record per process, by which a later supervisor finds it again
"""
