mkdir -p /home/me/.local/lib/nemotron-ops/releases /home/me/.local/lib/nemotron-ops/incoming
[ -e "/var/lib/systemd/linger/$(id -un)" ] || loginctl enable-linger 2>/dev/null \
  || sudo -n loginctl enable-linger "$(id -un)" 2>/dev/null \
  || echo "the service will end at logout; an administrator can change that: loginctl enable-linger $(id -un)"
mkdir -p /home/me/.local/share/nemotron-ops/builds /home/me/.local/share/nemotron-ops/models
sid=$(ps -o sid= -p $$ | tr -d ' '); start=$(sed 's/.*) //' "/proc/$sid/stat" 2>/dev/null | cut -d' ' -f20)
printf '%s, "sid": %s, "start": %s}\n' '{"who": "ann@desk", "since": "2026-01-01T00:00:00+00:00", "why": "deploy of 1.2.3-f05afeb3a3: a new driver"' "$sid" "${start:-0}" > /home/me/.local/lib/nemotron-ops/LOCK.json
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "begin", "release": "1.2.3-f05afeb3a3", "why": "a new driver"}' >> /home/me/.local/lib/nemotron-ops/deploy.log
for r in /home/me/.local/lib/nemotron-ops/releases/*; do
  [ -d "$r" ] && [ ! -f "$r/RELEASE.json" ] && [ "$r" != /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3 ] && rm -rf "$r"
done
true
