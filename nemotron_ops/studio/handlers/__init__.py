"""What each route does, one file for each page.

Each file uses only those below it:

    pages     the pages themselves, as HTML
    chat      chats, messages, answers, files, exports
    feed      the stream of a tab
    machine   instances, models, jobs, logs, keys
    account   setup, login, password, sessions
    asked     reads a request's JSON; refuses with a text
"""
