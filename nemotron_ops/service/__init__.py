"""systemd units and launchd agents.

Each file uses only those below it:

    gpu        whether the GPU that a service is meant for can be used: its device nodes, and what llama-server itself
               sees
    install    installs, restarts and removes the service on this machine
    granted    whether a running service got the limits that its unit asks for
    launchd    the launchd agent of a service on macOS: its property list, and the commands around it
    notify     tells the service manager how the service is doing: sd_notify, with the standard library only
    place      where a service lives on this machine, and what of it is there: units, folders, user, record
    systemd    talks to systemd: systemctl, journalctl, loginctl
    hardening  what a unit may do, and what it gets: limits, devices, the sandbox of each kind of unit
    units      the unit files of a service, complete
    words      command lines and addresses as systemd reads them
"""
