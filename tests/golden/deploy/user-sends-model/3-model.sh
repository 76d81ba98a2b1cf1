mkdir -p "$HOME/.config/nemotron-ops"/recipes; cp -n /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/recipes/*.toml "$HOME/.config/nemotron-ops"/recipes/ 2>/dev/null || true
/home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/venv/bin/nemotron-ops models import /home/me/.local/lib/nemotron-ops/incoming/model-30b
rm -rf /home/me/.local/lib/nemotron-ops/incoming/model-30b
