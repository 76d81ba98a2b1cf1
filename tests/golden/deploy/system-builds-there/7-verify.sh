exec /opt/nemotron-ops/releases/1.2.3-e37b9f2a63/verify.sh
