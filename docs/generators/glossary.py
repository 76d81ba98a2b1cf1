"""The glossary: the field's words as this project uses them, and where each one lives by the packages' maps. Disk."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2] / "nemotron_ops"


@dataclass(frozen=True)
class Word:
    """A word, what it means here, and the module or package that owns it."""

    name: str
    meaning: str
    home: str  # dotted, below nemotron_ops


WORDS = (
    Word("adoption", "A new supervisor takes over running processes that an earlier one left.", "supervisor.records"),
    Word("affinity", "A request goes to the instance that holds its conversation already.", "gateway.queue.affinity"),
    Word("alias", "A public name of a model, besides the recipe's name; several are allowed.", "recipes.schema"),
    Word(
        "attempt", "One try to get an answer from one instance; a failover makes another.", "gateway.upstream.attempt"
    ),
    Word(
        "backend",
        "What llama.cpp computes on: CPU, CUDA, Metal, Vulkan or HIP; decided when it is built.",
        "builds.backends",
    ),
    Word("backoff", "The pause before a dead instance is started again; doubles with each death.", "policy"),
    Word("build", "One compiled llama.cpp in the store, named by a hash of what decides its binary.", "builds.store"),
    Word("bundle", "The archive with nemotron-ops and its wheels that a deploy sends.", "deploy.artifacts.bundle"),
    Word(
        "canary",
        "A few prompts that a new process, or a new release, must answer before it gets traffic.",
        "supervisor.fleet.canary",
    ),
    Word(
        "continuation",
        "The rest of a stream from another instance, after the first one was lost.",
        "gateway.continuation",
    ),
    Word("control socket", "The unix socket of a running supervisor; commands ask there.", "supervisor.control"),
    Word(
        "ctx_size",
        "Context in tokens: the prompt and answer that an instance can hold, in all its slots together.",
        "recipes.schema",
    ),
    Word(
        "drain",
        "No new requests for an instance, a gateway or a machine; those in flight finish.",
        "supervisor.instance",
    ),
    Word("exchange", "One HTTP request and its answer, from the first byte to the last.", "gateway.exchange"),
    Word("facts", "What one machine is and has, looked at once and then passed as a value.", "host.facts"),
    Word("failover", "What follows when an attempt brings no answer or half of one.", "gateway.exchange.failover"),
    Word("fold", "To join a stream of events into the one answer that the client asked for.", "gateway.streams.fold"),
    Word("gateway", "The process between clients and instances: one endpoint, one port.", "gateway"),
    Word("GGUF", "llama.cpp's file format for models: a header, then tensors.", "models.gguf"),
    Word(
        "instance",
        "One configured llama-server. A model has as many as it has replicas: `30b-0`, `30b-1`.",
        "supervisor.instance",
    ),
    Word("key", "An API key of a client, with scopes and limits; only its hash is kept.", "gateway.keys.ring"),
    Word(
        "layer",
        "Where a value of a plan comes from: built in, recipe, profile, settings, environment, flag.",
        "recipes.resolve",
    ),
    Word("mmproj", "A GGUF file that lets a model see images.", "models.ref"),
    Word("n_gpu_layers", "How many layers of a model are on GPUs; the others are in host memory.", "memory.placement"),
    Word(
        "plan",
        "A request with every value resolved: of a build, a model's placement or a deploy. Steps follow from it.",
        "recipes.resolve",
    ),
    Word("profile", "Named values beside a recipe's own: `30b:tools`, `--profile guide`.", "recipes.schema"),
    Word("quant", "How a model's weights are quantised, as a label in file names: `Q8_0`.", "models.ref"),
    Word(
        "ready",
        "An instance may take traffic: `/health` has turned to 200 and `/metrics` answers.",
        "supervisor.instance.state",
    ),
    Word("recipe", "A TOML file that says what to serve and how.", "recipes.load"),
    Word(
        "release",
        "One deployed version on a target: program, build and what it serves; never changes.",
        "deploy.steps.release",
    ),
    Word("revision", "A commit of a repository on the hub.", "models.hub"),
    Word(
        "self-test",
        "Questions with known answers that a new build must pass before it becomes current.",
        "builds.proof",
    ),
    Word("shard", "One file of a model that is split over several.", "models.ref"),
    Word(
        "slot",
        "What llama-server works on one request in; an instance has `parallel` of them.",
        "gateway.queue.admission",
    ),
    Word(
        "snapshot",
        "What the supervisor tells the gateway about models and instances, as one immutable value.",
        "supervisor.snapshot",
    ),
    Word(
        "spec",
        "What is asked of the supervisor for one instance, complete: argv, environment, policies.",
        "supervisor.spec",
    ),
    Word(
        "state",
        "Where an instance is in its lifecycle: stopped, starting, ready, stopping, killing, backoff, failed.",
        "supervisor.instance.state",
    ),
    Word("store", "Proven files under names that are hashes: builds and models.", "models.store"),
    Word("supervisor", "The process that starts, watches and stops llama-servers and the gateway.", "supervisor"),
    Word("target", "Another machine that ssh reaches, and that releases are deployed to.", "deploy.remote.targets"),
    Word("toolkit", "CUDA's compiler and libraries, from the system or assembled from wheels.", "builds.toolchain"),
    Word("ubatch", "Tokens that llama.cpp computes in one step; decides the size of compute buffers.", "memory.model"),
    Word("upstream", "A llama-server as the gateway sees it.", "gateway.upstream"),
    Word(
        "wanted", "Whether an instance should run; separate from the state that it is in.", "supervisor.instance.state"
    ),
    Word(
        "wedged",
        "A process that runs and makes no progress; it is ended and started again.",
        "supervisor.instance.liveness",
    ),
)


def page() -> str:
    """One row per word, in alphabetical order."""
    rows = [f"| {w.name} | {w.meaning} | {_home(w.home)} |" for w in sorted(WORDS, key=lambda w: w.name.lower())]
    return "\n".join(
        [
            "# Glossary\n",
            "The field's words as this project uses them. The last column is the module that owns the word, with its\n"
            "line in the map of its package (the docstring of its `__init__.py`).\n",
            "| word | meaning | lives in |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _home(name: str) -> str:
    path = ROOT / name.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    about = lines_of_map(path.parent / "__init__.py")[path.name].partition("   ")[0].partition("  ->")[0]
    shown = name.replace(".", "/") + ("/" if path.is_dir() else ".py")
    return f"[`{shown}`](../../nemotron_ops/{file.relative_to(ROOT)}): {about}"


def lines_of_map(package: Path) -> dict[str, str]:
    """The map in a package's docstring: name of a file or a floor -> its description."""
    found: dict[str, str] = {}
    last = ""
    for line in (ast.get_docstring(ast.parse(package.read_text())) or "").splitlines():
        text = line.strip()
        if not line.startswith("    "):
            last = ""
        elif last and line.startswith("        "):  # a line that goes on
            found[last] += " " + text
        elif "  " in text:
            last, _, about = text.partition("  ")
            found[last] = about.strip()
    return found
