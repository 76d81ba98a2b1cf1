"""Describes requests, responses and errors for `/openapi.json`, from the code.

Each file uses only those below it:

    describe  builds the OpenAPI description from the table of routes
    answers   JSON schemas of responses and errors
    fields    JSON schemas of request fields, with the types that llama-server accepts
"""
