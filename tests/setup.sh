#!/bin/sh
# Installs the programs that the test suite runs, where this is Debian or Ubuntu and we are root.
# Otherwise names in one line what stays missing, and which tests are left out for it; in CI (CI=true) that is an error.
set -eu

# program, Debian package, tests that need it
table='
cc               build-essential    builds, tests of builds
c++              build-essential    builds, tests of builds
git              git                tests of builds
ccache           ccache             only time: a second build of llama.cpp is a copy
make             make               make test
openssl          openssl            tests of TLS
ssh              openssh-client     tests/hosts, tests of deploys
curl             curl               one test of serve
haproxy          haproxy            tests of balancers, the benchmark of the gateway
systemd-analyze  systemd            tests of units
systemd-nspawn   systemd-container  tests/hosts
mmdebstrap       mmdebstrap         tests/hosts
zstd             zstd               tests/hosts
ip               iproute2           tests/hosts
bwrap            bubblewrap         tests of sandboxes
chromium         chromium           tests of the web page
nsenter          util-linux         tests/hosts
node             nodejs             tests/real/clients
npm              npm                tests/real/clients
'

missing() {  # columns $1 of the rows whose program is not there
  printf '%s\n' "$table" | while read -r program package tests; do
    [ -z "$program" ] || command -v "$program" >/dev/null 2>&1 || eval "echo \"$1\""
  done
}

is_root() { [ "$(id -u)" = 0 ]; }

packages=$(missing '$package' | sort -u)
if [ -n "$packages" ] && is_root && command -v apt-get >/dev/null 2>&1; then
  echo "setup: installing" $packages
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update </dev/null || true
  # shellcheck disable=SC2086  # one word per package
  apt-get -qq install -y --no-install-recommends $packages </dev/null >/dev/null || true
fi

if command -v npm >/dev/null 2>&1 && [ -x .venv/bin/python ]; then
  tests/real/clients/install.sh .venv/bin/python >/dev/null || echo "setup: cannot install the clients of tests/real/clients" >&2
fi

left_out=$(missing '$program ($tests)' | paste -sd ';' - | sed 's/;/; /g')
is_root || left_out="${left_out:+$left_out; }root (tests/hosts)"
[ -z "$left_out" ] || echo "setup: left out, for want of: $left_out" >&2
[ -z "$left_out" ] || [ "${CI:-}" != true ]
