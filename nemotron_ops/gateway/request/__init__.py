"""A client's body on its way upstream, and what routing needs to know of it.

Each file uses only those below it:

    form         prepares an upload (`multipart/form-data`): its file and its known text fields
    prepare      prepares a JSON request: allowed fields, defaults, caps
    reasoning    translates reasoning switches and budgets of other servers' APIs
    tool_choice  which tools a request offers, and what it says about their use
    bounds       bounds the fields that llama-server allocates memory or computes for
    grammar      measures a grammar (GBNF): its nesting, rules, and ways to go on
    schemas      measures JSON schemas, tools and template arguments
    counts       counts the answers that a request asks for: choices times prompts, or texts to embed
    media        refuses requests whose media are not inline
    documents    makes text of text documents; refuses content that llama-server would leave out
    json_fields  reads and writes the top level of a JSON body
    meanings     the fields that change an answer: honoured by what, or refused
    limits       the most that a request may ask for: each bound, with its reason
    fields       the fields of each API that reach llama-server, their bounds and names
"""
