exec /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/verify.sh
