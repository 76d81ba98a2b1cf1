"""Ollama's API, spoken on the client's side only: engines are asked through their chat and embeddings APIs.

Each file uses only those below it:

    conversion  what becomes of an engine's answer: lines of a stream, one whole object, embeddings
    answer      the objects of an answer, from the parts of a chat answer
    translate   turns a request into one of the engine's APIs
    messages    turns Ollama's messages into those of a chat
    options     turns `options` into fields of a chat
    pages       tags, ps, show and version, and the refusals of what the command line does
"""
