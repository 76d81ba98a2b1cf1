"""Metrics, access log and traces.

Each file uses only those below it:

    exposition  the gateway's numbers in Prometheus' format, by its official client library
    access_log  the access log: JSON lines that are collected here and written by a thread, bounded in size
    accounting  what is written down about requests: numbers, use per key, the access log
    log_fields  what each field of an access log line means
    metrics     what happened, in numbers
    tracing     One OpenTelemetry span per request, where the environment asks for traces and the library is there
"""
