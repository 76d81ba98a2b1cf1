exec /home/me/.local/lib/nemotron-ops/releases/1.2.2-old/verify.sh
