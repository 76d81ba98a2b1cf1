"""Fine-tuning: from one's own data to an adapter. This part reads and checks data; it needs no torch.

Each file uses only those below it:

    data_check     checks files of training data: every finding with its rows, counts, reasoning share
    contamination  finds rows whose question is in held-out data: whole, or 13 words in a row
    row_checks     what can be wrong with one row
    findings       every finding by name: whether it stops training, and what to do
    shapes         five shapes of rows as one: messages with their reasoning
    rows           reads rows of JSON, JSONL and CSV files, one by one
"""
