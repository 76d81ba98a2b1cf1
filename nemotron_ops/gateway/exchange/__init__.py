"""One request from its first byte to its last.

Each file uses only those below it:

    own_routes    what the gateway answers itself: health, models, metrics, its own description
    chat_control  a word to a chat stream that is running (`/v1/chat/completions/control`)
    engine_pages  an instance's own pages (`/slots`, `/props`, `/engine/metrics` ...), for the admin scope
    failover      an attempt brought no answer, or half of one: whose fault it was, and what is asked for next
    keepalive     what happens while an instance works on a request and says nothing: comments, and an end of patience
    exchange      one request, from its last byte to the end of its answer
    respond       how an answer that is there goes out: a stream's end, a folded stream, a whole answer
"""
