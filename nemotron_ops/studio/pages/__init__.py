"""The pages as templates (`*.html`), and their texts.

Each file uses only those below it:

    catalogue  every text of the pages, in each language
"""
