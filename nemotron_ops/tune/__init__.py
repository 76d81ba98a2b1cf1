"""Fine-tuning: from one's own data to an adapter. This part reads and checks data; it needs no torch.

Each file uses only those below it:

    environment       training environments, made on demand from a lock file
    jobs              training jobs: one folder each, its record, its progress, who works on it
    trainer           the trainer as a process that outlives its starter
    child             programs that import torch, run by path inside the environment
    tiny_weights      weights of a dense checkpoint -> the arrays of its GGUF
    merge_need        sizes of the files that merging an adapter writes
    need              memory that training a LoRA needs, before it starts
    targets           which modules a LoRA may train, and what that comes to
    network           sizes of a Nemotron-H checkpoint by its config.json
    render            renders training samples with the chat template of the GGUF that will be served
    adapter_file      writes a LoRA adapter as GGUF, from the two files that PEFT saves
    adapter_check     whether an adapter belongs to a base: kind, architecture, shapes, hash
    adapter_tensors   tensors of an adapter as PEFT saves them -> those that llama.cpp reads
    safetensors       reads the tensors of a safetensors file
    data_check     checks files of training data: every finding with its rows, counts, reasoning share
    contamination  finds rows whose question is in held-out data: whole, or 13 words in a row
    row_checks     what can be wrong with one row
    findings       every finding by name: whether it stops training, and what to do
    shapes         five shapes of rows as one: messages with their reasoning
    rows           reads rows of JSON, JSONL and CSV files, one by one
"""
