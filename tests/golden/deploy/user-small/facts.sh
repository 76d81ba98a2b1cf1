root="$HOME/.local/lib/nemotron-ops"; data="$HOME/.local/share/nemotron-ops"
say() { printf '%s=%s\n' "$1" "$2"; }
say user "$(id -un)"; say uid "$(id -u)"; say home "$HOME"; say hostname "$(uname -n)"; say machine "$(uname -m)"
for p in python3.14 python3.13 python3.12 python3.11 python3; do
  command -v "$p" >/dev/null 2>&1 || continue
  say python "$(command -v "$p")"
  say python_version "$("$p" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
done
say glibc "$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)"
say cpu "$(grep -m1 -E '^(flags|Features)' /proc/cpuinfo 2>/dev/null | cut -d: -f2)"
[ -d /run/systemd/system ] && say systemd "$(systemctl --version | head -n1 | cut -d' ' -f2)"
sudo -n true 2>/dev/null && say sudo yes
there() { d="$1"; while [ ! -d "$d" ]; do d=$(dirname "$d"); done; printf '%s' "$d"; }
disk() { df -Pk "$(there "$1")" | tail -n1 | awk "{print \$$2}"; }
say free_kib "$(disk "$root" 4)"; say data_free_kib "$(disk "$data" 4)"
[ "$(disk "$root" 6)" = "$(disk "$data" 6)" ] && say one_disk yes
say incoming_kib "$(du -sk "$root/incoming" 2>/dev/null | cut -f1)"
for b in "$data"/builds/*/manifest.json; do [ -f "$b" ] && say build "$(basename "$(dirname "$b")")"; done
find "$data/models" -name '*.gguf' -printf 'model=%s %f\n' 2>/dev/null
say ram_kib "$(awk '/^MemAvailable/ {print $2}' /proc/meminfo 2>/dev/null)"
say current "$(readlink "$root/current" 2>/dev/null)"
say previous "$(readlink "$root/previous" 2>/dev/null)"
for r in $(ls -tr "$root/releases" 2>/dev/null); do
  [ -f "$root/releases/$r/RELEASE.json" ] && say release "$r"
  [ -f "$root/releases/$r/GOOD" ] && say good "$r"
  [ -f "$root/releases/$r/BAD" ] && say bad "$r"
done
if [ -f "$root/LOCK.json" ]; then
  say lock "$(tr -d '\n' < "$root/LOCK.json")"
  number() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$root/LOCK.json"; }
  now=$(sed 's/.*) //' "/proc/$(number sid)/stat" 2>/dev/null | cut -d' ' -f20)
  [ -n "$now" ] && [ "$now" = "$(number start)" ] && say lock_alive yes
fi
[ -f "$root/HOLD.json" ] && say hold "$(tr -d '\n' < "$root/HOLD.json")"
say gpus "$(ls /dev 2>/dev/null | grep -c '^nvidia[0-9]')"
if command -v nvidia-smi >/dev/null 2>&1; then
  for c in $(timeout 20 nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null); do
    say compute "$c"
  done
  say driver_cuda "$(timeout 20 nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9.]*\).*/\1/p')"
fi
if [ -e /dev/kfd ] && { command -v hipcc >/dev/null 2>&1 || [ -x /opt/rocm/bin/hipcc ]; }; then say hip yes; fi
