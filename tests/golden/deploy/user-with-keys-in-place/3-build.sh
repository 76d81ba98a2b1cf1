if [ ! -f /home/me/.local/share/nemotron-ops/builds/cpu-1234/manifest.json ]; then
  rm -rf /home/me/.local/share/nemotron-ops/builds/.sent; mkdir -p /home/me/.local/share/nemotron-ops/builds/.sent
  tar -xf /home/me/.local/lib/nemotron-ops/incoming/build-cpu-1234.tar -C /home/me/.local/share/nemotron-ops/builds/.sent
  rm -rf /home/me/.local/share/nemotron-ops/builds/cpu-1234; mv -T /home/me/.local/share/nemotron-ops/builds/.sent/cpu-1234 /home/me/.local/share/nemotron-ops/builds/cpu-1234
  rm -rf /home/me/.local/share/nemotron-ops/builds/.sent
fi
/home/me/.local/share/nemotron-ops/builds/cpu-1234/bin/llama-server --version
