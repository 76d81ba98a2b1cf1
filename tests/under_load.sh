#!/bin/sh
# Runs the suite several times in a row while all cores are busy: `tests/under_load.sh [ROUNDS] [make arguments]`.
# A test that fails here in one round of three waits for a time instead of a fact, or for too short a time.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-3}
[ $# -eq 0 ] || shift
load=

stop() {
  for pid in $load; do kill "$pid" 2>/dev/null || true; done
}
trap stop EXIT
trap 'exit 130' INT TERM

for _ in $(seq "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)"); do
  .venv/bin/python -c 'while True: pass' &
  load="$load $!"
done

failed=0
for round in $(seq "$rounds"); do
  echo "under load: round $round of $rounds"
  ${MAKE:-make} --no-print-directory "${@:-test}" || failed=$((failed + 1))
done
echo "under load: $failed of $rounds rounds failed"
[ "$failed" = 0 ]
