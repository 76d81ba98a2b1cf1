"""GGUF files: hub, download, verification, store, header, and tiny synthetic models.

Each file uses only those below it:

    carry         imports models from files, and exports them into folders for machines without network
    garbage       chooses the models to remove when room is needed
    search        finds repositories with models on the hub, by words
    offers        the quants of a repository with their headers, before any download
    checkpoint    checkpoints in safetensors: their files, tensors and config, fetched and proven
    fetch         fetches a model: plans the download, downloads what is missing, verifies every file
    caches        files in the caches of the hub's client and of llama.cpp
    base_model    the model that a GGUF file was made from, and its small files on the hub
    hub           asks a model hub for files, their hashes, and headers by range requests
    local         GGUF headers of files on this machine
    gguf          reads the header of an untrusted GGUF file, local or remote
    synthetic     tiny Nemotron 3 models that answer with known sentences
    tensor_types  ggml's tensor types: bytes per row
    transfer      downloads one file: resumable at any byte, hashed during the transfer
    partial       a file that is being downloaded: its bytes, and which of them are there
    pace          watches one answer: a web page in place of the file, or hardly a byte
    ranges        judges HTTP answers to range requests, and decides on further connections
    usage         which models are in use by a process
    store         models on this machine: listing, verification, adding, removing
    proof         hashes of files: sha256, or git's blob id for files outside LFS
    ref           which files a model's name means
    web           requests to a model hub, with the rules for redirects
    refusals      turns a hub's refusal into an error: its cause, and advice that is true
"""
