"""GGUF files: hub, download, proof, store, header, and tiny synthetic ones.

Each file uses only those below it:

    carry         moves models in and out of the store by hand: files from elsewhere, and folders for machines without
                  network
    garbage       which models to remove when room is needed
    offers        the quants of a repository with their headers, before anything is downloaded
    fetch         fetches a model: looks what is there, says what it would take, brings the rest, proves it
    caches        files that other programs have downloaded already: the hub's cache and llama.cpp's
    hub           what a model hub has: files of a repository and their proofs, and headers read from afar
    local         GGUF headers of files on this machine
    gguf          reads the header of a GGUF file, from anywhere, without trusting it
    synthetic     tiny Nemotron 3 models that are made on the spot and say known sentences
    tensor_types  ggml's tensor types: how many bytes a row takes
    transfer      downloads one file: resumable at any byte, proven while it comes
    partial       a file that is being downloaded: its bytes so far, and which they are
    ranges        what an HTTP answer to a request for bytes means, and how many connections are worth having
    usage         which models some process is using right now
    store         models on this machine: which there are, whether their bytes are still right, adding and removing
    proof         hashes that prove a file's bytes: sha256, or git's blob id for files that are not in LFS
    ref           which files a model's name means
    web           GET requests to a model hub, with the rules for redirects
"""
