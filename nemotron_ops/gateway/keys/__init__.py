"""Who may use what, and how much of it.

Each file uses only those below it:

    hot_reload  files that are read again when they change: the keys, the TLS certificate and its key
    keystore    the keys file and the usage file
    quota       how much each key has used, and whether it may use more
    key_usage   what keys have used, in numbers that can be added
    ring        who may do what: keys, hashed, with scopes and limits
"""
