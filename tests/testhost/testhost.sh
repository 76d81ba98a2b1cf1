#!/bin/bash
# testhost.sh -- throw-away "remote hosts": real systemd as PID 1 + real sshd, in a systemd-nspawn container with its own
# netns (veth /30, no route out), booted from a cached rootfs (build-rootfs.sh) under an overlay. Root needed; no stdin, no tty.
#
#   testhost.sh up NAME            boot; prints JSON {host,port,key,ssh_config,...}   (~1-2 s)
#   testhost.sh ssh NAME[:USER] CMD...      over real ssh (USER root|deploy|alice)
#   testhost.sh exec NAME CMD...            out of band, as root inside (nsenter), for assertions
#   testhost.sh reboot NAME | poweroff NAME | crash NAME (SIGKILL, like a power cut) | start NAME   (state kept)
#   testhost.sh down NAME | drop NAME (at once) | list | gc (those whose TESTHOST_OWNER pid is dead) | gc --all
# Env: TESTHOST_OWNER (pid: gc may reap once it is gone), TESTHOST_TAR (rootfs tar.zst), TESTHOST_CACHE (/var/cache/nemotron-ops-testhost), TESTHOST_STATE (/tmp/nemotron-ops-testhost)
set -euo pipefail
cache=${TESTHOST_CACHE:-/var/cache/nemotron-ops-testhost} state=${TESTHOST_STATE:-/tmp/nemotron-ops-testhost}
tar=${TESTHOST_TAR:-$cache/testhost.tar.zst}
die() { echo "testhost: $*" >&2; exit 1; }
now() { date +%s%3N; }
starttime() { cut -d' ' -f22 "/proc/$1/stat" 2>/dev/null || true; }
alive() { [ -n "${1:-}" ] && [ -n "${2:-}" ] && [ "$(starttime "$1")" = "$2" ]; }       # pid + start time: never a recycled pid
runs() { grep -q '^State:[[:space:]]*[^[:space:]ZX]' "/proc/$1/status" 2>/dev/null; }
save() { printf '%s %s\n' "$2" "$(starttime "$2")" > "$d/$1"; }
load() { pid= st=; [ -f "$d/$1" ] && read -r pid st < "$d/$1" || true; }

base() { # extract once per tar content
  [ -s "$tar" ] || die "no rootfs tar at $tar (build-rootfs.sh $tar)"
  local id; id=$(stat -c '%s-%Y' "$tar"); root=$cache/root-$id; mkdir -p "$cache"
  exec 9>"$cache/.lock"; flock 9
  [ -f "$root/.ok" ] || { rm -rf "$root"; mkdir -p "$root/fs"; tar -xf "$tar" --zstd --numeric-owner -C "$root/fs"; touch "$root/.ok"; }
  exec 9>&-
}
net_up() { # one /30 per instance: .1 here, .2 in there
  exec 8>"$state/.netlock"; flock 8
  local n=0 used; used=$(ip -o -4 addr show; ip -o link show)     # not "ip | grep -q": pipefail + SIGPIPE lies
  while [[ $used == *" 10.231.$n.1/"* || $used == *" nmth$n@"* ]]; do n=$((n+1)); [ $n -lt 250 ] || die "no free subnet"; done
  ip netns add "nmt-$name"
  ip link add "nmth$n" type veth peer name eth0 netns "nmt-$name"
  ip addr add "10.231.$n.1/30" dev "nmth$n"; ip link set "nmth$n" up
  ip -n "nmt-$name" addr add "10.231.$n.2/30" dev eth0; ip -n "nmt-$name" link set eth0 up; ip -n "nmt-$name" link set lo up
  exec 8>&-
  echo "10.231.$n.2" > "$d/ip"; echo "nmth$n" > "$d/veth"
}
boot() { # supervise nspawn in its own session; exit status 133 = the guest asked to reboot
  local cg=/sys/fs/cgroup/unified; [ -d $cg ] || cg=/sys/fs/cgroup
  mkdir -p "$cg/nmt-$name"; echo "$cg/nmt-$name" > "$d/cgroup"
  setsid bash -c 'd=$1 name=$2; echo $$ > "$(cat $d/cgroup)/cgroup.procs"; export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_TMPFS_TMP=0
    while :; do rc=0
      systemd-nspawn --quiet --register=no --keep-unit --machine="nmt-$name" --hostname="$name" --directory="$d/root" \
        --network-namespace-path="/run/netns/nmt-$name" --resolv-conf=off --timezone=off --link-journal=no --notify-ready=yes \
        --capability=CAP_NET_ADMIN,CAP_IPC_LOCK,CAP_BPF,CAP_PERFMON,CAP_SYSLOG --system-call-filter="bpf perf_event_open" --boot --console=pipe || rc=$?
      echo "nspawn exit $rc"; [ $rc = 133 ] || exit $rc
    done' x "$d" "$name" </dev/null >>"$d/console.log" 2>&1 8>&- 9>&- &
  save sup $!; disown
}
leader() { # host pid of the guest PID 1
  load sup; alive "$pid" "$st" || return 1
  local np; np=$(pgrep -P "$pid" -x systemd-nspawn) || return 1; lead=$(pgrep -P "$np" | head -1); [ -n "$lead" ]
}
wait_up() { local end=$(( $(now) + ${1:-30000} )); : > "$d/isrunning"  # not what an earlier boot said
  until (exec 3<>"/dev/tcp/$(cat "$d/ip")/22") 2>/dev/null && leader && nsenter -t "$lead" -a systemctl is-system-running --wait >"$d/isrunning" 2>/dev/null; do
    load sup; alive "$pid" "$st" || { tail -20 "$d/console.log" >&2; die "$name died"; }
    grep -q degraded "$d/isrunning" 2>/dev/null && break
    [ "$(now)" -lt "$end" ] || { tail -20 "$d/console.log" >&2; die "$name: no boot in ${1:-30000} ms"; }; sleep 0.03
  done; }
wait_gone() { local end=$(( $(now) + $1 )); load sup; while alive "$pid" "$st"; do [ "$(now)" -lt "$end" ] || return 1; sleep 0.05; done; }
json() { printf '{"name":"%s","host":"%s","port":22,"users":["root","deploy","alice"],"key":"%s","known_hosts":"%s","ssh_config":"%s","root":"%s","console":"%s","state":"%s"}\n' \
  "$name" "$(cat "$d/ip")" "$d/id_ed25519" "$d/known_hosts" "$d/ssh_config" "$d/root" "$d/console.log" "$(cat "$d/isrunning" 2>/dev/null || echo off)"; }

up() {
  [ -e "$d" ] && die "$name exists"; base; mkdir -p "$d"/{up,work,root}; chmod 700 "$d"; [ -z "${TESTHOST_OWNER:-}" ] || echo "$TESTHOST_OWNER $(starttime "$TESTHOST_OWNER")" > "$d/owner"
  trap 'rc=$?; [ $rc = 0 ] || down 2000; exit $rc' EXIT; trap 'exit 130' INT TERM
  mount -t overlay "nmt-$name" -o "lowerdir=$root/fs,upperdir=$d/up,workdir=$d/work" "$d/root"
  net_up
  ssh-keygen -q -t ed25519 -N '' -C "$name" -f "$d/id_ed25519"; ssh-keygen -q -t ed25519 -N '' -C host -f "$d/root/etc/ssh/ssh_host_ed25519_key"
  echo "$(cat "$d/ip") $(cut -d' ' -f1,2 "$d/root/etc/ssh/ssh_host_ed25519_key.pub")" > "$d/known_hosts"
  local u h; for u in root deploy alice; do h=$d/root/home/$u; [ $u = root ] && h=$d/root/root; mkdir -p -m 700 "$h/.ssh"
    install -m 600 "$d/id_ed25519.pub" "$h/.ssh/authorized_keys"; chown -R --reference="$h" "$h/.ssh"; done
  echo "$name" > "$d/root/etc/hostname"; tr -d - < /proc/sys/kernel/random/uuid > "$d/root/etc/machine-id"
  cat > "$d/ssh_config" <<C
Host $name $(cat "$d/ip")
  HostName $(cat "$d/ip")
  IdentityFile $d/id_ed25519
  IdentitiesOnly yes
  UserKnownHostsFile $d/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 5
C
  boot; wait_up; trap - EXIT INT TERM; json
}
down() { [ -d "$d" ] || return 0
  if leader; then kill -SIGRTMIN+4 "$lead" 2>/dev/null || true; wait_gone "${1:-15000}" || { leader && kill -9 "$lead"; wait_gone 5000 || true; }; fi
  load sup; ! alive "$pid" "$st" || kill -9 "$pid"
  local i; for i in $(seq 200); do umount "$d/root" 2>/dev/null && break; mountpoint -q "$d/root" || break; sleep 0.1; done
  [ -f "$d/veth" ] && ip link del "$(cat "$d/veth")" 2>/dev/null || true; ip netns del "nmt-$name" 2>/dev/null || true
  local c; for c in "$(cat "$d/cgroup" 2>/dev/null)" "/sys/fs/cgroup/systemd/nmt-$name"; do [ -d "$c" ] && find "$c" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
  mountpoint -q "$d/root" && die "$d/root still mounted"; rm -rf "$d"
}
mkdir -p "$state"; cmd=${1:?up|ssh|exec|reboot|poweroff|crash|start|down|gc|list}; shift
case $cmd in list) ls "$state"; exit;; gc) for d in "$state"/*/; do d=${d%/}; [ -d "$d" ] || continue; name=${d##*/}; [ -f "$d/owner" ] || [ "${1:-}" = --all ] || continue; load owner; [ "${1:-}" != --all ] && alive "$pid" "$st" || { echo "gc $name"; down 3000; }; done; exit;; esac
name=${1:?NAME}; shift; user=root; case $name in *:*) user=${name#*:}; name=${name%%:*};; esac
[[ $name =~ ^[a-z0-9-]{1,24}$ ]] || die "bad name"; d=$state/$name
case $cmd in
  up) up;; down) down;; drop) down 1;; json) json;;
  ssh) exec ssh -F "$d/ssh_config" -l "$user" "$name" "$@" </dev/null;;
  exec) leader || die "$name is off"; exec nsenter -t "$lead" -a -- "$@" </dev/null;;
  reboot) leader; old=$lead; kill -SIGRTMIN+5 "$lead"; for i in $(seq 300); do kill -0 "$old" 2>/dev/null || break; sleep 0.05; done; sleep 0.1; for i in $(seq 100); do leader && break; sleep 0.05; done; wait_up; json;;
  poweroff) leader && kill -SIGRTMIN+4 "$lead"; wait_gone 30000 || die "still up";;
  crash) leader || die off; load sup; np=$(pgrep -P "$pid" -x systemd-nspawn); kill -9 "$pid" "$lead"; wait_gone 20000
    for i in $(seq 300); do runs "$np" || runs "$lead" || break; sleep 0.05; done;;  # nspawn lets go of the root file system last
  start) boot; wait_up; json;;
  *) die "unknown $cmd";;
esac
