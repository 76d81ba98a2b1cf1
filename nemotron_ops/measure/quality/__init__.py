"""How good a model answers: task sets made by seed, grades, intervals; perplexity and KL divergence.

Each file uses only those below it:

    run           a whole `eval`: recipe and reference, texts, recommendation
    evaluate      asks a model all items of the tasks, grades and keeps the scores
    lm_harness    lm-eval in an environment of its own, against an endpoint
    perplexity    llama-perplexity: perplexity of a text, KL divergence from another model
    asking        asks items at an endpoint, several at once
    scores        shares with intervals, and what two models' scores mean together
    task_sets     the tasks by name
    arithmetic    task: sums, differences, products, and two steps
    tool_use      task: the right tool with the right arguments, or none
    instructions  task: forms of an answer that can be checked
    needles       task: a fact in a long text
    grading       whether an answer is right
    item          one question with what is right, and an answer
"""
