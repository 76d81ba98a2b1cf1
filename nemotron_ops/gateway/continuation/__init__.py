"""A stream that was cut goes on at another instance, or ends in the open.

Each file uses only those below it:

    recovery         what becomes of an answer that is cut off, or that ends without words
    lost_in_thought  thoughts without words in a stream: a model that ends its thinking and says nothing
    partial_call     a tool call in progress, as the text that the model was writing
    plan             going on with a stream whose llama-server died
    rewrite          the events of a continuation as the rest of the stream that the client has begun to read
    overlap          what of a continuation's text the client has not seen yet
    transcript       what a client has seen of an answer, read from the events that were passed on
"""
