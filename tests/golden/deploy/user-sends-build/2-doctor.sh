/home/me/.local/lib/nemotron-ops/releases/1.2.3-7b1a537594/venv/bin/nemotron-ops doctor --offline || echo 'going on: llama.cpp need not be compiled there'
