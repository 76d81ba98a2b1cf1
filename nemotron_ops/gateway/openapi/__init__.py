"""`/openapi.json`: requests, answers and errors, described from the code.

Each file uses only those below it:

    describe  the gateway's routes as an OpenAPI description, made from the table of routes
    answers   what answers look like, as JSON schemas: those of the engine as far as clients rely on them, and all
              errors
    fields    what the fields of a request look like, as JSON schemas: the types that llama-server reads them as
"""
