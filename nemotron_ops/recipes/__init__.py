"""TOML → Recipe → Plan: what is to be served, and where each value comes from.

Each file uses only those below it:

    load     finds and reads recipe files: the user's own first, then the shipped ones
    check    turns parsed TOML into a frozen dataclass, or says precisely what is wrong with it
    resolve  recipe + profile + settings + environment + flags -> Plan: nothing left to default, every value's source
             known
    schema   what a recipe may say: one frozen dataclass per TOML table
"""
