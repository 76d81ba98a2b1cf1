"""Recipes: one TOML file per model, resolved with flags and settings into a plan that leaves nothing to default."""
