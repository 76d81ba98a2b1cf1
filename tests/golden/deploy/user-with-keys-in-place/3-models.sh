mkdir -p "$HOME/.config/nemotron-ops"/recipes; cp -n /home/me/.local/lib/nemotron-ops/releases/1.2.3-96b17209fd/recipes/*.toml "$HOME/.config/nemotron-ops"/recipes/ 2>/dev/null || true
/home/me/.local/lib/nemotron-ops/releases/1.2.3-96b17209fd/venv/bin/nemotron-ops fetch 30b
