"""The Model Context Protocol: our tools for other programs. Only these processes import the SDK.

Each file uses only those below it:

    serve       `nemotron-ops mcp`: a server over stdio or HTTP
    offered     the tools that the server offers, and what runs each
"""
