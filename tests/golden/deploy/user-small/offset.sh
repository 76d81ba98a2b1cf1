umask 077
mkdir -p "$(dirname /x/a)"
if [ -f /x/a ] && printf '%s  %s\n' 0000000000000000000000000000000000000000000000000000000000000000 /x/a | sha256sum -c --quiet - 2>/dev/null; then echo whole
else touch /x/a.part && wc -c < /x/a.part; fi
