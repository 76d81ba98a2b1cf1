"""What each route does, one file for each page.

Each file uses only those below it:

    pages     the pages themselves, as HTML
    chat      chats, messages, answers, files, exports
    feed      the stream of a tab
    shelf     models and engines of this machine and the hub: search, plans, what is stored, builds, keys, tools
    tune      training: check data, train, pause, resume, delete
    jobs      jobs of the command line: fetch, add, change, remove, verify, import, upgrade, template
    machine   instances, logs, what this machine has
    account   setup, login, password, sessions
    asked     reads a request's JSON; refuses with a text
"""
