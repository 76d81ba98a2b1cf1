"""Who may use the page: a password, sessions, the one-time code of the first launch.

Each file uses only those below it:

    store      the password's hash, sessions and the setup code, on disk
    attempts   slows down guesses of the password
    sessions   sessions: tokens, their hashes, their end
    passwords  hashes of passwords
"""
