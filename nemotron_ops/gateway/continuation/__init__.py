"""Continues a stream that was cut at another instance, or ends it with an error.

Each file uses only those below it:

    recovery         decides how an answer goes on that was cut off, or that ended without content
    plan             plans how a stream whose instance was lost continues at another one
    lost_in_thought  detects answers that end after reasoning with no content
    partial_call     turns a tool call that was cut in the middle into the text that the model was writing
    rewrite          rewrites the events of a continuation into the rest of the first stream
    overlap          drops from a continuation the text that the client already has
    transcript       reads from the forwarded events what the client has received of an answer
"""
