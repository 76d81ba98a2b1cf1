exec /opt/nemotron-ops/releases/1.2.3-1e026844f2/verify.sh
