"""Memory: bytes from a GGUF header, and placements that fit a machine.

Each file uses only those below it:

    pack         several models on one machine: quant and placement of each, or a refusal
    log          reads from llama-server's log how much memory it uses
    table        quants × contexts: what fits one machine, and which row to take
    fit          places a model on a machine: the best placement that fits, or the nearest one that would
    placement    bytes per device for a given split of the layers
    machine      memory pools of a machine: its GPUs and its host memory
    model        bytes of a model, buffer by buffer, for given settings
    model_shape  the model parameters that determine memory use, from a GGUF header
"""
