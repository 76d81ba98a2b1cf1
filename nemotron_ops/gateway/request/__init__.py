"""A client's body on its way upstream, and what routing needs to know of it.

Each file uses only those below it:

    form         prepares an upload (`multipart/form-data`): its file and its known text fields
    prepare      prepares a JSON request: allowed fields, defaults, caps
    reasoning    translates reasoning switches and budgets of other servers' APIs
    counts       counts the answers that a request asks for: choices times prompts, or texts to embed
    media        refuses requests whose media are not inline
    json_fields  reads and writes the top level of a JSON body
    fields       the fields of each API that reach llama-server, their bounds and names
"""
