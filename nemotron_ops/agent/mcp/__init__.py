"""The Model Context Protocol: our tools for other programs, and other programs' tools. Only here the SDK is imported.

Each file uses only those below it:

    serve       `nemotron-ops mcp`: a server over stdio or HTTP
    offered     the tools that the server offers, and what runs each
    remote      a server of mcp.toml as one request uses it
    result_text  the result of a call as text
    host        one connection to an MCP server: tools, calls, an end that leaves no process
    pins        tools as a person has confirmed them
    settings    mcp.toml: servers, and what models may use of each
"""
