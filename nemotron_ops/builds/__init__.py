"""llama.cpp: from source to a binary that has proved itself. Git, registries, cmake, ninja, disk.

plan ─▶ source ─▶ toolchain ─▶ compile ─▶ proof ─▶ store (rename, current)

    doctor       what this machine lacks for a build, and how to get it
    run          one build from question to proven binary
    carry        builds carried to another machine of the same kind: one archive out, checked and proven in
    compile      Configures, compiles and installs llama.cpp
    disk_errors  what the disk refuses while something is built, in words
    known_bad    llama.cpp builds that are known to fail with Nemotron
    proof        no build is trusted before it has answered: the self-test and what it leaves behind
    source       where the source of llama.cpp comes from: git, a registry, a folder or an archive
    store        finished builds: content-addressed folders, the current one, and what is removed when
    plan         from what is asked, what the machine is and which source: the complete plan of a build
    toolchain    compilers and CUDA toolkits: found on this machine, or assembled from wheels
    backends     CMake options of each backend, and the refusals that come before them
    packages     package registries: finds, downloads, verifies and unpacks published archives and wheels
    disk         room on disk for what is about to be written, each file system counted once
    spec         what a build is asked to be, and what its source is
"""
