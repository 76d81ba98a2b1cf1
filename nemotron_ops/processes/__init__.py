"""Child processes of this machine: pids, signals, log files, listening sockets, the kernel's OOM killer.

No file here uses another one:

    logfiles  log files that children append to: bounded in size, without a lost line
    oom       whether the kernel's OOM killer ended a process: cgroup counters and the kernel's log
    process   processes as the kernel knows them: start, identify, await, signal
    sockets   listening sockets that outlive a process: opened, passed by the service manager, copied from a process
"""
