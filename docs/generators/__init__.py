"""What `make docs` writes: whole reference pages, and tables inside pages that are written by hand.

`docs/generate.py` uses these:

    commands    the reference of commands: their own `--help`
    recipes     the reference of recipes: their dataclasses, and the comment behind each field
    exit_codes  the reference of exit codes: one row per kind of error
    metrics     the reference of metrics: names, types, labels, units and meanings
    api_errors  the reference of the gateway's errors: codes, statuses and shapes
    access_log  the reference of the access log: the fields of a line
    tables      tables inside pages that are written by hand: faults of gateway and hosts, models in numbers, rooms
    rooms       the rooms of the house and the floors of the gateway, with their doors
    glossary    the field's words as this project uses them, and where each one lives
"""
