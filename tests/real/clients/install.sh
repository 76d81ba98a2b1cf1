#!/bin/sh
# Installs the clients of the round trips into a folder of the user's cache, once for each version of their lists.
# Prints the folder: `py` is a virtual environment, `js` has `node_modules`.
# usage: install.sh PYTHON
set -eu
python=$1
uv=0.13.9
here=$(cd "$(dirname "$0")" && pwd)
root=${XDG_CACHE_HOME:-$HOME/.cache}/nemotron-ops/test-clients
version=$("$python" -V 2>&1 | cut -d' ' -f2)
name=$(cat "$here/requirements.txt" "$here/package-lock.json" | cksum | cut -d' ' -f1)-$version
[ -e "$root/$name/ready" ] && { echo "$root/$name"; exit 0; }

mkdir -p "$root"
made=$(mktemp -d "$root/.$name.XXXXXX")
trap 'rm -rf "$made"' EXIT INT TERM
echo "setup: installing the clients of the round trips, once" >&2
mkdir "$made/js"
cp "$here/package.json" "$here/package-lock.json" "$made/js"
(cd "$made/js" && npm ci --silent --no-audit --no-fund --ignore-scripts >&2)
mv "$made" "$root/$name" 2>/dev/null || true   # a virtual environment is made at its final place: it holds its path
trap - EXIT INT TERM
"$python" -m venv --clear "$root/$name/py"
py=$root/$name/py/bin/python
"$py" -m pip install --quiet --disable-pip-version-check "uv==$uv" >&2  # ten times as fast as pip here
"$py" -m uv pip install --quiet --python "$py" --requirement "$here/requirements.txt" >&2
touch "$root/$name/ready"
echo "$root/$name"
