"""Chooses the instance that serves a request, and when.

Each file uses only those below it:

    pool         routes requests to instances by the latest snapshot; requests wait here for a free one
    admission    a fair, bounded queue per model, and the slots and tokens that granted requests hold
    lines        the waiting requests of one model: one line per key, served by start-time fair queueing
    estimates    reserves tokens of shared contexts: estimates each request's need, learns from answers
    reservation  predicts how many tokens of a shared KV cache a request takes
    ticket       a request's place in the queue, and an instance's capacity
    denylist     bodies that an engine died of or got stuck on: refused for a while
    suspects     a circuit breaker per instance: pauses one that has just failed a request
    affinity     finds the instance whose cache already holds a conversation
    snapshots    follows the supervisor: receives snapshots, reports requests in flight
"""
