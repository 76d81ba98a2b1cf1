"""TOML → Recipe → Plan: the model to serve, its settings, and the source of each value.

Each file uses only those below it:

    load     finds and reads recipe files: the user's own first, then the shipped ones
    check    turns parsed TOML into a frozen dataclass, or names the key that is wrong
    resolve  recipe + profile + settings + environment + flags -> Plan, with the source of every value
    ollama_names  names of Ollama's library for the models that have a recipe here
    schema   the tables and keys of a recipe: one frozen dataclass per TOML table
"""
