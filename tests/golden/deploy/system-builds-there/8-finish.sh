cd /opt/nemotron-ops
rm -rf incoming before LOCK.json
: > releases/1.2.3-1e026844f2/GOOD; rm -f releases/1.2.3-1e026844f2/BAD
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "good", "release": "1.2.3-1e026844f2"}' >> /opt/nemotron-ops/deploy.log
keep=" $(basename "$(readlink current)") $(basename "$(readlink previous || echo -)") "
for r in $(ls -t releases | tail -n +6); do
  case "$keep" in *" $r "*) ;; *) rm -rf "releases/$r" ;; esac
done
used=" $(for r in releases/*; do basename "$(readlink "$r/venv" || echo -)"; done | tr '\n' ' ') "
for p in programs/*; do
  case "$used" in *" $(basename "$p") "*) ;; *) rm -rf "$p" ;; esac
done
