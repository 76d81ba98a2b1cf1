"""Bytes from a GGUF header; what fits where.

Each file uses only those below it:

    pack       several models on one machine: quant and placement of each, or a refusal
    log        what llama-server itself says about memory, read from its log
    table      quants × contexts: what fits where on one machine, and which line to take
    fit        what fits where: the best placement of a model on a machine, or the nearest that would fit
    placement  which bytes go to which device for a given split, as llama.cpp would put them
    machine    the memory that a model may be put into: GPUs, and the host's
    model      how many bytes a model takes, buffer by buffer, for given settings
    hyper      what of a model decides its memory: kinds of layers, widths, bytes of weights by block
"""
