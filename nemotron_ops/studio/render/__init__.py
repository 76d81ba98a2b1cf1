"""Markdown of a model as safe HTML, block by block, while it grows.

Each file uses only those below it:

    growing   a text that grows: which of its blocks are final, and their HTML
    segments  cuts a Markdown text into blocks that can be rendered each by itself
    markdown  one block of Markdown as safe HTML
    maths     TeX as MathML
    code      code with classes for its colours
    clean     removes all markup but a short list
"""
