#!/bin/sh
# What llama-server's router mode starts as its child in the benchmark: the stub, which says that it is ready.
unset LD_PRELOAD
echo "$@" > "$BENCH_ARGS"
(sleep 0.5; printf '\ncmd_child_to_router:state:{"state":"ready","payload":{}}\n') &
exec "$BENCH_STUB" --close-streams "$@"
