"""What is sent to a target: the bundle with our wheel, builds and models, and whether they fit there.

Each file uses only those below it:

    bundle  packs everything a target needs to install this version without a network, as one tar file
    lock    the versions and hashes of our dependencies, and whether files are the locked ones
    wheel   packs this program as a wheel, from an installation or a checkout
    fits    what fits a target: whether a build of another machine runs there, and whether its disks have room
"""
