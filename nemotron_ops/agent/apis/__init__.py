"""One request in the shapes of its API: turns, events, items of hosted tools, citations.

Each file uses only those below it:

    faces       which API a request belongs to
    chat        OpenAI's chat API: the profile `agent`, and `web_search_options`
    messages    Anthropic's messages API: bodies of turns, blocks, `pause_turn`
    messages_history   what the messages of a request bring from earlier answers
    messages_blocks    blocks of hosted tools
    responses   OpenAI's responses API: bodies of turns, approvals
    responses_history  what the input of a response brings from earlier ones
    responses_events   events of several turns as those of one response
    responses_items    items of hosted tools, and the events around them
    citing      marks of a text that is still growing
    face        what the loop needs of an API
"""
