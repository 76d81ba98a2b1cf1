mkdir -p "$HOME/.config/nemotron-ops"/recipes; cp -n /home/me/.local/lib/nemotron-ops/releases/1.2.3-2a2251d7c6/recipes/*.toml "$HOME/.config/nemotron-ops"/recipes/ 2>/dev/null || true
/home/me/.local/lib/nemotron-ops/releases/1.2.3-2a2251d7c6/venv/bin/nemotron-ops fetch 30b
