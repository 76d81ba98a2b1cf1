"""OpenAI's responses API, spoken on the client's side only: engines are asked through their chat API.

Each file uses only those below it:

    conversion  what becomes of a chat answer: a whole response, a folded one, or a stream
    stream     turns a chat stream into the events of a response
    fold       turns a chat stream into one whole response
    response   the response object and its output items, from the parts of a chat answer
    translate  turns a request into a chat request
    tools      turns tools and the choice among them into those of a chat
    items      turns input items into the messages of a chat
    thoughts   carries reasoning through clients that keep only `encrypted_content`
    turn       what is known of one request: its own fields, which the response repeats
    store      keeps responses for later turns, in memory and on disk, private to a key
"""
