"""Runs hosted tools between the turns of a model: a process of its own that asks the gateway as a client.

Each file uses only those below it; nothing outside uses this room but `operations` and `cli`:

    __main__    `python -m nemotron_ops.agent`: runs the agent as a process of its own
    server      takes requests from the gateway over a unix socket; ends when idle
    run         one request: turns, tools, events, until it ends
    apis        one request in the shapes of its API: OpenAI's responses and chat, Anthropic's messages
    asking      whether a call may run: policy, what was allowed before, the taint rule, the person
    mcp         the Model Context Protocol: our tools for other programs, and theirs
    here        what this installation gives to tools
    tools       what a model may call: the table of hosted tools, and what runs each
    approvals   which calls a person has approved
    settings    agent.toml: budgets, and which tools ask before they run
    turns       one turn: asks the gateway in the client's own API, with the client's key
    loop        what comes after a turn: a table with budgets
    wire        requests and answers between gateway and agent, as frames
    options     every option of the agent's process
"""
