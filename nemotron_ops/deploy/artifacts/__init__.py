"""What is sent to a target: the bundle with our wheel, builds and models, and whether they fit there.

Each file uses only those below it:

    bundle  everything a target needs to install this version without a network, as one tar file
    fits    what fits a target: whether a build made elsewhere is right for it, and whether there is room
    wheel   this very program as a wheel, from wherever it is running: an installation or a checkout
"""
