[ -f /opt/nemotron-ops/LOCK.json ] || { echo "nobody holds the lock"; exit 0; }
sid=$(sed -n 's/.*"sid": \([0-9]*\).*/\1/p' /opt/nemotron-ops/LOCK.json); start=$(sed -n 's/.*"start": \([0-9]*\).*/\1/p' /opt/nemotron-ops/LOCK.json)
if [ "$(sed 's/.*) //' "/proc/$sid/stat" 2>/dev/null | cut -d' ' -f20)" = "$start" ]; then
  kill -TERM "-$sid" && echo "ended session $sid"
else
  echo "its session is gone already"
fi
rm -f /opt/nemotron-ops/LOCK.json
