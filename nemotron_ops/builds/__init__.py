"""llama.cpp: from source to a self-tested binary. Git, registries, cmake, ninja, disk.

plan ─▶ source ─▶ toolchain ─▶ compile ─▶ proof ─▶ store (rename, current)

    doctor       what this machine lacks for a build, and the commands that install it
    run          one build, from request to proven binary
    more_programs  compiles a further program of a stored build when it is first wanted
    make         compiles, installs, self-tests and stores one prepared build
    prepared     a build whose source is known exactly, and its plan on this machine
    carry        exports a build as one archive, and imports one, checked and self-tested
    compile      configures, compiles and installs llama.cpp
    converter    converts safetensors with the source's own converter, in an environment of its own
    disk_errors  translates disk errors during a build into our own errors
    known_bad    llama.cpp builds that are known to fail with Nemotron
    proof        self-tests a build before it is used
    source       gets llama.cpp's source: git, a registry, a folder or an archive
    store        finished builds: content-addressed folders, the current one, retention
    plan         the complete plan of a build, from request, machine and source
    toolchain    compilers and CUDA toolkits: found on this machine, or assembled from wheels
    backends     CMake options of each backend, and why a backend is refused
    packages     package registries: finds, downloads, verifies and unpacks archives and wheels
    disk         refuses work that needs more room than a file system has
    spec         build requests and sources
"""
