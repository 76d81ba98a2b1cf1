"""Numbers that can be compared: load on an endpoint, what it answers, what both mean.

Latencies are measured as a client sees them, kept with what made them (machine, build, model, flags), and compared by
ranks over interleaved repeats. Each file uses only those below it:

    canary       judges a new build or quant before it takes over
    tuning       finds llama-server's flags for this machine by measuring
    quality      how good a model answers: tasks, perplexity, comparison
    bench        every load on every endpoint, repeats interleaved, results kept
    llama_bench  the same model and flags by llama.cpp's own benchmark
    endpoint     an endpoint of its own for a measurement: `serve` in a private home
    remote       what made the numbers of an endpoint on another machine
    identity     what made a number: machine, build, model files with hashes, flags
    pictures     charts of runs, drawn with matplotlib; a self-contained page
    generator    puts a load on an endpoint, as a closed or an open loop
    power        what a load costs in energy, where the machine tells
    request      sends one streaming request and notes when each piece arrives
    load         a load: which requests arrive when
    baseline     which kept run a new one is held against
    runs         what was measured, as JSON Lines in the state folder
    compare      whether a run is slower than another beyond the noise
    summary      from samples to numbers: latencies, speeds, goodput
    stream       from the bytes of one stream to its timings
    ranks        Mann-Whitney test, Hodges-Lehmann shift
    figures      quantiles, and confidence intervals of shares
"""
