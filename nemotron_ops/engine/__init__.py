"""One llama-server, seen from outside: its command line, its flags, its health, its deaths, its HTTP."""
