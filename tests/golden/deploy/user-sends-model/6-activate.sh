cd /home/me/.local/lib/nemotron-ops
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "activate", "release": "1.2.3-5370cec70f"}' >> /home/me/.local/lib/nemotron-ops/deploy.log
old=$(readlink current || true)
if [ -n "$old" ] && [ "$old" != releases/1.2.3-5370cec70f ]; then rm -f .previous.new; ln -s "$old" .previous.new; mv -T .previous.new previous; fi
rm -f /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/BAD
exec /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/activate.sh
