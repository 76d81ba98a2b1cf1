rm -rf /home/me/.local/lib/nemotron-ops/candidate; mkdir -p /home/me/.local/lib/nemotron-ops/candidate/data /home/me/.local/lib/nemotron-ops/candidate/config
mkdir -p /home/me/.local/lib/nemotron-ops/candidate/data/builds
ln -s /home/me/.local/share/nemotron-ops/builds/cpu-1234 /home/me/.local/lib/nemotron-ops/candidate/data/builds/cpu-1234
printf '%s' '{"current": "cpu-1234", "previous": []}' > /home/me/.local/lib/nemotron-ops/candidate/data/builds/current.json
ln -s /home/me/.local/share/nemotron-ops/models /home/me/.local/lib/nemotron-ops/candidate/data/models
cp -r /home/me/.local/lib/nemotron-ops/releases/1.2.3-7b1a537594/recipes /home/me/.local/lib/nemotron-ops/candidate/config/recipes
cp "$HOME/.config/nemotron-ops"/settings.toml /home/me/.local/lib/nemotron-ops/candidate/config 2>/dev/null || true
rm -rf /home/me/.local/lib/nemotron-ops/candidate
