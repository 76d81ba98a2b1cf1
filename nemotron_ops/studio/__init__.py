"""The page that people open: a process of its own beside the gateway.

Each file uses only those below it; nothing outside uses this room but `operations` and `cli`:

    __main__    `python -m nemotron_ops.studio`: runs the page as a process of its own
    app         routes to functions; the guard before them and headers on every answer
    handlers    what each route does
    shared      what all requests share
    pages       the pages as templates, and their texts
    static      styles and scripts of the pages
    turns       one answer, from its question to its end
    pdf_text    the text of a PDF, read in a process with bounded memory and time
    neighbours  gateway, control socket, and children of our own command line
    threads     chats: their messages as a tree, on disk
    login       who may use the page
    render      Markdown of a model as safe HTML, block by block, while it grows
    guard       which requests may reach a handler at all
    options     every option of the page's process
"""
