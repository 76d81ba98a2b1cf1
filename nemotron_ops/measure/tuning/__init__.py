"""Finds llama-server's flags for this machine by measuring. Each file uses only those below it:

optimize   a whole `optimize`: candidates, rungs, final, the recipe's text
trial      measures one candidate on a llama-server of its own
written    writes the found flags into a user recipe, and takes them out again
edit       sets keys of a recipe's [server] table, with comments; everything else stays
halving    successive halving, and the final of the best against the guide's flags
space      which flags are tried, on which machine, for what use
"""
