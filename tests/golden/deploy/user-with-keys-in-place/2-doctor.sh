/home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/venv/bin/nemotron-ops doctor --offline || echo 'going on: llama.cpp need not be compiled there'
