"""What the product does, without words or colours: takes an `Installation`, reports its progress, returns data.

Nothing here prints, asks or knows the command line; a question is a callable, `confirm`. Pages, jobs and commands call
the same functions. Each file uses only those below it:

    convert           a checkpoint in safetensors becomes GGUF models of the store
    convert_check     proves a converted file: header, size, an answer of the engine
    convert_source    the checkpoint of a conversion: on a hub or in a folder, fetched and staged
    convert_plan      what a conversion will write, and what it needs of disk and memory
    calibration       the importance matrix of a conversion: a file, or made from the docs of llama.cpp
    tune_merge        an adapter merged into its base, as a GGUF of its own
    tune_compare      base and tune side by side, and an adapter as a file
    tune_detach       a training job that goes on in a session of its own
    tuning            trains a LoRA: check, tokenize, train, write, prove, publish
    tune_guard        puts lent instances back where a training job was killed
    tune_lend         lends the machine to a training job: instances are drained or stopped, and put back
    tune_proof        proves an adapter in the engine that will serve it
    tiny_train        makes the tiny trainable model
    tokens            training samples as token ids, by the engine that will serve them
    serving_changes   adds, changes and removes models of a running supervisor
    detach            starts a supervisor in a session of its own, and waits until it is ready
    serving           runs the supervisor of a composed configuration; the gateway's command line
    converse          llama-cli's command line, for a conversation without a running endpoint
    wish_file         keeps what is to be served in the state folder, for the supervisor and its next start
    compose           from a wish to what the supervisor runs: resolve, look, decide, make, argv
    recipe_from_model  describes a model for a recipe of one's own: from its header and its card on the hub
    memory_budget     what each model asks of memory; what the decision makes of its settings
    model_sampling    sampling of a model that no recipe knows: of its header, then of its base model
    templates         chat templates of recipes, as files that llama-server reads
    quants            a model's quants with their headers, from files or over the network
    own_template      gives a recipe a chat template of one's own, and takes it away again
    upgrade           a new build or quant beside the running one, taken back if it is worse
    program_output    runs a program that writes one file, with its size as the progress
    further_programs  programs of llama.cpp that a build does not hold
    building          the build to serve with: the current one, or a new one for this machine
    build_flags       flags of llama-server: those a build knows, those that recipes would pass
    retention         which builds are needed, and the removal of old ones
    unclean_shutdown  proves models again after the machine went down while it served
    page              the page as a companion of the supervisor
    service_manager   tells the service manager what the supervisor does
    service           what `service install` is asked for, completed and made ready
    launchd_agent     the service on a Mac
    gpu_sight         whether a GPU is visible: device nodes, llama-server's list
    wish_changes      models are added to a wish, changed and removed; a wish as JSON
    wish              what `serve` is asked for, resolved into plans and an endpoint
    adapters          LoRA adapters of a model: found, bound to their base, kept by their content
    model_files       a model's files: made on the spot, found in the store, or fetched
    fetching          what a fetch needs of an installation
    deploying         what a deploy takes along from this machine
    targets           other machines: named, connected, asked, changed
    own_installation  what is installed of nemotron-ops itself: how, whether it is whole, how it is upgraded
    ask               asks a running endpoint and passes the answer on as it streams
"""
