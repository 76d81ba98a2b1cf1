"""systemd units and launchd agents.

Each file uses only those below it:

    install    installs, restarts and removes the service on this machine
    place      where a service lives on this machine: its folders, unit files, user and record
    systemd    runs systemctl, journalctl and loginctl
    units      renders the unit files of a service
    launchd    renders the launchd agent of a service on macOS, and the commands around it
    granted    what the machine or the scope does not grant a service: priority, locked memory, GPU waiting
    hardening  what a unit may do, and what it gets: limits, devices, the sandbox of each kind of unit
    commands   the commands of a service: what it runs, and its own program run as its user
    words      quotes command lines and addresses as systemd reads them
    spec       what a service is: its names, its user, its specification
    gpu        decides whether the GPU that a service is meant for can be used
    notify     reports the service's state to the service manager (sd_notify)
"""
