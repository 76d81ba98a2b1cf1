"""Package registries: finds, downloads, verifies and unpacks published archives and wheels.

Each file uses only those below it:

    archive        archives, unpacked without trusting them
    package_table  the table of packages, brought up to date from the registry
    pins           which llama.cpp this release builds, and which packages carry which
    wheel_files    pinned files: wheels from the registries that pip uses, packages from Debian, checked by hash
    registry       llama.cpp from the package registry that this machine already trusts
    download       files over HTTP or from a local index, kept only when their hash is right
    simple_index   pages of a package index: PEP 691 (JSON) and PEP 503 (HTML)
    pip_config     the package registries that this machine already trusts, as pip is configured
    tls            which certificates are trusted: the system's, those that pip is told to use, and any of pip's
                   trusted hosts
    wheel_pins     compilers that come as wheels, each pinned by its hash
"""
