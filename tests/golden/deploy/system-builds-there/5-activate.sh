cd /opt/nemotron-ops
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "activate", "release": "1.2.3-056c1ce200"}' >> /opt/nemotron-ops/deploy.log
old=$(readlink current || true)
if [ -n "$old" ] && [ "$old" != releases/1.2.3-056c1ce200 ]; then rm -f .previous.new; ln -s "$old" .previous.new; mv -T .previous.new previous; fi
rm -f /opt/nemotron-ops/releases/1.2.3-056c1ce200/BAD
exec /opt/nemotron-ops/releases/1.2.3-056c1ce200/activate.sh
