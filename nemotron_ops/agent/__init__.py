"""Runs hosted tools between the turns of a model: a process of its own that asks the gateway as a client.

Each file uses only those below it; nothing outside uses this room but `operations` and `cli`:

    __main__    `python -m nemotron_ops.agent`: runs the agent as a process of its own
    server      takes requests from the gateway over a unix socket; ends when idle
    run         one request: turns, tools, events, until it ends
    code        one sandbox session, used from the event loop; a cancelled call kills it
    turns       one turn: asks the gateway's responses API with the client's key
    responses   shapes of OpenAI's responses API: bodies of turns, items of tools
    events      events of several turns as those of one response
    loop        what comes after a turn: a table with budgets
    wire        requests and answers between gateway and agent, as frames
    options     every option of the agent's process
"""
