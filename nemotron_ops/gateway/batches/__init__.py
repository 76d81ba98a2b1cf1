"""OpenAI's files and batches: many requests in one file, answered while nothing else waits.

Each file uses only those below it:

    runner   runs the lines of batches when nothing else waits, and finishes batches
    inner    sends one request through the gateway, without a socket
    folder   files and batches on disk
    lines    lines of a batch's input and of its results
    upload   reads an uploaded file out of its form
    batch    files and batches as clients see them, and the states of a batch
"""
