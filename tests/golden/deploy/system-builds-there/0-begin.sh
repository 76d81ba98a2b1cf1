mkdir -p /opt/nemotron-ops/releases /opt/nemotron-ops/incoming
install -d -m 0755 /opt/nemotron-ops /opt/nemotron-ops/releases /opt/nemotron-ops/programs
printf '%s' 'g render - -
u nemotron - "nemotron-ops service" /var/lib/nemotron-ops /usr/sbin/nologin
m nemotron render
m nemotron video
' | systemd-sysusers -
install -d -o nemotron -g nemotron /var/lib/nemotron-ops /var/lib/nemotron-ops/builds /var/lib/nemotron-ops/models
install -d -m 0755 /etc/nemotron-ops
sid=$(ps -o sid= -p $$ | tr -d ' '); start=$(sed 's/.*) //' "/proc/$sid/stat" 2>/dev/null | cut -d' ' -f20)
printf '%s, "sid": %s, "start": %s}\n' '{"who": "ann@desk", "since": "2026-01-01T00:00:00+00:00", "why": "deploy of 1.2.3-1e026844f2: a new driver"' "$sid" "${start:-0}" > /opt/nemotron-ops/LOCK.json
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "begin", "release": "1.2.3-1e026844f2", "why": "a new driver"}' >> /opt/nemotron-ops/deploy.log
for r in /opt/nemotron-ops/releases/*; do
  [ -d "$r" ] && [ ! -f "$r/RELEASE.json" ] && [ "$r" != /opt/nemotron-ops/releases/1.2.3-1e026844f2 ] && rm -rf "$r"
done
true
