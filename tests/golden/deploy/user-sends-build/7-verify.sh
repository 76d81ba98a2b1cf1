exec /home/me/.local/lib/nemotron-ops/releases/1.2.3-7b1a537594/verify.sh
