"""The APIs that clients speak: routes, names of models, errors.

Each file uses only those below it:

    catalog        who is called what, and who can answer: a snapshot, ready to look things up in
    errors         what the gateway itself says: errors in each API's shape, the list of models, health
    content_types  content types of the gateway's responses
    routes         every path that the gateway answers, and how
"""
