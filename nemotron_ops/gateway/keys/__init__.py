"""API keys: authentication, limits, usage; hosts and origins.

Each file uses only those below it:

    hot_reload  reloads the API keys, the TLS certificate and its key when their files change
    keystore    the keys file and the usage file
    quota       enforces the limits of each key: concurrency, tokens per day, token buckets for rates
    key_usage   usage per key, as numbers that can be added and subtracted
    ring        API keys: hashed, with scopes, models and limits; authentication against them
    origin      checks the Host and Origin of a request, and answers CORS
"""
