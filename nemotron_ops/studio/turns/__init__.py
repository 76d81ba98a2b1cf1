"""One answer, from its question to its end. It belongs to the server: tabs come and go.

Each file uses only those below it:

    run      runs turns: asks the gateway, renders, stores, tells the feed
    feed     numbered lines for the tabs that look at a chat
    request  a chat's branch and settings as the body of a request; untouched fields are absent
    state    the states of a turn, and what changes them
"""
