"""What a model may call: the table of hosted tools, and what runs each.

Each file uses only those below it:

    kinds       the table of hosted tools: what a request may ask for, and what makes it
    web_tools   `web_search` of OpenAI, `web_search` and `web_fetch` of Anthropic
    code_tools  `code_interpreter` of OpenAI, `code_execution` of Anthropic
    mcp_tools   `mcp` of OpenAI: tools of other servers
    remote_names  their names as functions
    context     what the tools of one request share
    web         the web as one request sees it: searches, pages, sources, which addresses may be read
    code        one sandbox session, used from the event loop; a cancelled call kills it
    tool        a tool, one call of it, and what the call gave
"""
