"""The APIs that clients speak: routes, names of models, errors.

Each file uses only those below it:

    catalog      who is called what, and who can answer: a snapshot, ready to look things up in
    errors       what the gateway itself says: errors in each API's shape, the list of models, health
    error_codes  every error code: its statuses, when it is sent, and what to do about it
    routes       every path that the gateway answers, and how
"""
