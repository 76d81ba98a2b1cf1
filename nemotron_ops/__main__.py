"""`python -m nemotron_ops`: the command line."""

from nemotron_ops.cli import main

main()
