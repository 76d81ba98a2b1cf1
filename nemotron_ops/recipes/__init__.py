"""TOML → Recipe → Plan: the model to serve, its settings, and the source of each value.

Each file uses only those below it:

    load     finds and reads recipe files: the user's own first, then the shipped ones
    check    turns parsed TOML into a frozen dataclass, or names the key that is wrong
    written  the text of a whole recipe for a model, from what header and hub say
    sampling  sampling of a model that no recipe knows: of its header, of its base model's file
    resolve  recipe + profile + settings + environment + flags -> Plan, with the source of every value
    ollama_names  names of Ollama's library for the models that have a recipe here
    schema   the tables and keys of a recipe: one frozen dataclass per TOML table
"""
