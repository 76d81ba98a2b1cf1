"""Child processes of this machine: pids, signals, log files, the kernel's OOM killer.

Each file uses only those below it:

    logfiles  log files that children write to themselves: bounded in size, without a lost line
    oom       whether the kernel's OOM killer took a process: cgroup counters and the kernel's log
    process   processes as the kernel knows them: start, identify, watch, signal
"""
