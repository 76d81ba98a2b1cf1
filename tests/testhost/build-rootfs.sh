#!/bin/bash
# build-rootfs.sh OUT.tar[.zst]  -- root file system of a test host: bookworm, systemd, sshd, python3, from apt only (~40 s, ~55 MiB zst).
# SUITE=sid EXTRA=llama.cpp-tools,curl adds the newest systemd and a CPU llama-server (no weights). It contains no keys: testhost.sh adds them at start.
# Several callers may ask for the same file at once: one makes it, the others wait for it.
set -euo pipefail
out=${1:?usage: build-rootfs.sh OUT.tar.zst}; suite=${SUITE:-bookworm}; mirror=${MIRROR:-$(awk '/^URIs:/{print $2; exit} /^deb /{for(i=2;i<=NF;i++) if ($i ~ /^http/) {print $i; exit}}' /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null)}
pk=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,openssh-server,python3,sudo,iproute2,procps,rsync,util-linux,ca-certificates,libgomp1${EXTRA:+,$EXTRA}
keyring=${KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
tmp=$out.part.tar
exec 9>"$out.lock"; flock 9
[ ! -s "$out" ] || exit 0
hook() { # runs on the build machine with $1 = chroot
cat <<'H'
set -e; r=$1
chroot $r useradd -m -u 1000 -s /bin/bash deploy
chroot $r useradd -m -u 1001 -s /bin/bash alice
printf 'deploy ALL=(ALL) NOPASSWD: ALL\n' > $r/etc/sudoers.d/deploy; chmod 440 $r/etc/sudoers.d/deploy
rm -f $r/etc/ssh/ssh_host_*
printf 'PasswordAuthentication no\nHostKey /etc/ssh/ssh_host_ed25519_key\nPermitRootLogin prohibit-password\nUseDNS no\nLogLevel VERBOSE\n' > $r/etc/ssh/sshd_config.d/10-test.conf
# host keys are made at first start if absent
mkdir -p $r/etc/systemd/system/ssh.service.d
printf '[Service]\nExecStartPre=\nExecStartPre=/bin/sh -c "[ -f /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N \\"\\" -f /etc/ssh/ssh_host_ed25519_key"\nExecStartPre=/usr/sbin/sshd -t\n' > $r/etc/systemd/system/ssh.service.d/10-keys.conf
for u in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer getty@tty1.service console-getty.service serial-getty@ttyS0.service serial-getty@hvc0.service proc-sys-fs-binfmt_misc.automount systemd-binfmt.service; do ln -sf /dev/null $r/etc/systemd/system/$u; done
mkdir -p $r/etc/systemd/journald.conf.d $r/var/log/journal
printf '[Journal]\nStorage=persistent\nSystemMaxUse=64M\nRateLimitIntervalSec=0\n' > $r/etc/systemd/journald.conf.d/10-test.conf
printf 'testhost\n' > $r/etc/hostname; printf '127.0.0.1 localhost testhost\n::1 localhost\n' > $r/etc/hosts
printf '# none\n' > $r/etc/fstab; : > $r/etc/machine-id; rm -f $r/var/lib/dbus/machine-id $r/etc/resolv.conf; : > $r/etc/resolv.conf
rm -rf $r/var/cache/apt/*.bin $r/var/lib/apt/lists/* $r/usr/share/doc/* $r/usr/share/man/* $r/usr/share/locale/*
H
}
h=$(mktemp); hook > "$h"; trap 'rm -f "$h" "$tmp" "$out.part"' EXIT
mmdebstrap --quiet --variant=minbase --include="$pk" \
  --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --customize-hook="sh $h \"\$1\"" "$suite" "$tmp" "deb [signed-by=$keyring] $mirror $suite main" </dev/null
case $out in *.zst) zstd -q -T0 -6 -f "$tmp" -o "$out.part" && mv "$out.part" "$out";; *) mv "$tmp" "$out";; esac
ls -l "$out"
