"""Counts, logs and traces requests.

Each file uses only those below it:

    accounting  counts and logs finished requests: metrics, usage per key, access log, traces
    exposition  renders metrics and gauges in Prometheus' text format
    tracing     writes one OpenTelemetry span per request, if traces are enabled
    log_fields  the meaning of each field of an access log line
    log_line    makes the access log's JSON line of a finished request
    access_log  writes the access log from a thread, and rotates it by size
    metrics     counts requests, tokens and times as they happen
"""
