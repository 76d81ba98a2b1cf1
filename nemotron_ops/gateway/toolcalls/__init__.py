"""Tool calls that are right, or are said to be wrong: checks and heals what a model called.

Each file uses only those below it:

    corpus     what the ladder makes of cases in a file: for bug reports
    healing    heals one request's answers: whole ones and chat streams
    reask      asks once more for a call that came out wrong
    chat_shape  the ladder on whole chat answers and messages
    chat_stream  holds back what may be a call in a chat stream, and heals it
    messages_stream  the same for a stream of the messages API
    plain_words  tells by their bytes events that healing need not look at
    held_calls  holds an engine's calls until their arguments are whole
    outlet      where the events of a stream go
    history    mends arguments that a client sends back
    heal       the ladder, from an engine's answer to the calls that were meant
    scan       splits growing text into what may go out and what may be a call
    leaks      reads calls from markup that a model wrote as text
    quoted     whether a place in a Markdown text is code or a quote
    coerce     brings arguments into the types of their schema
    schema     checks a value against a JSON schema
    names      finds the tool that a name means
    read_json  reads the JSON of arguments: strictly first, then mended
    offered    reads what a request offers: tools, their schemas, the choice among them
"""
