cd /home/me/.local/lib/nemotron-ops
rm -f LOCK.json
: > releases/1.2.2-old/GOOD; rm -f releases/1.2.2-old/BAD
if [ -d releases/1.2.3-new ]; then : > releases/1.2.3-new/BAD; rm -f releases/1.2.3-new/GOOD; rm -f .previous.new; ln -s releases/1.2.3-new .previous.new; mv -T .previous.new previous; fi
