"""The client's side of the wire: its connection, heads and bodies.

Each file uses only those below it:

    connection     one client's connection: splits its bytes into requests, answers them in order, keeps deadlines
    phase          the phases of a connection: their order, and what a passed deadline means in each
    answer_writer  writes the answers of one connection: whole, or in parts as chunks
    sent_ahead     holds bytes that a client sends while its earlier request is being answered
    reader         parses a client's bytes into whole requests, within bounds; refuses ambiguous ones
    heads          HTTP heads: reads a client's, writes those of upstream requests and of answers
"""
