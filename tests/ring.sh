#!/bin/sh
# Runs one ring of the suite, or one room of it, several tests at once: `tests/ring.sh process [gateway]`.
# Tests with the `serial` mark measure, or need the whole machine; they run alone, after the others. Reports: build/tests/*.xml.
# WORKERS=n sets how many run at once, PYTEST_ARGS adds options for pytest.
set -eu
cd "$(dirname "$0")/.."
ring=$1 room=${2:-}
folder=tests/$ring${room:+/$room}
[ -d "$folder" ] || exit 0

cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
case $ring in
  pure) workers=$cores ;;
  process) workers=$((cores * 2)) ;;  # these tests mostly wait: 90 s of processor time in 293 s
  *) workers=$((cores + 1)) ;;
esac
workers=${WORKERS:-$((workers < 8 ? workers : 8))}
failed=0

run() {
  name=$1
  shift
  echo "$name: $*"
  # shellcheck disable=SC2086  # one word per option
  .venv/bin/python -m pytest "$folder" --quiet --junit-xml="build/tests/$name.xml" "$@" ${PYTEST_ARGS:-} || failed=1
}

run "$ring" -m "not serial" -n "$workers" --dist loadfile --no-loadscope-reorder
if grep -rqs --include='*.py' 'mark\.serial' "$folder"; then
  run "$ring-serial" -m serial
fi
exit $failed
