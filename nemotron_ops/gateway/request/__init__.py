"""What of a client's body goes upstream, and what routing needs to know of it.

Each file uses only those below it:

    form     form bodies (`multipart/form-data`): what of them reaches llama-server
    prepare  a client's request as llama-server gets it
    fields   which fields of a request reach llama-server, and what they are called in each API
    media    media in a request: only what it carries itself
"""
