"""One request in the shapes of its API: turns, events, items of hosted tools, citations.

Each file uses only those below it:

    faces       which API a request belongs to
    responses   OpenAI's responses API: bodies of turns, approvals
    responses_history  what the input of a response brings from earlier ones
    responses_events   events of several turns as those of one response
    responses_items    items of hosted tools, and the events around them
    citing      marks of a text that is still growing
    face        what the loop needs of an API
"""
