"""Chats: their messages as a tree, on disk.

Each file uses only those below it:

    export  a chat as Markdown, JSON, or JSON lines for tuning
    store   chats and messages in one SQLite file
    tree    messages, branches, edits, forks
"""
