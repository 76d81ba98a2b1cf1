"""`export kubernetes`: manifests for an existing orchestrator. Prints."""

from __future__ import annotations

from typing import Any

import click

from nemotron_ops.cli.app import App, json_option


@click.group()
def export() -> None:
    """Write manifests for other orchestrators."""


@export.command()
@click.argument("recipes", nargs=-1, required=True)
@click.option("--image", required=True, help="Image that contains nemotron-ops, and a compiler or a build.")
@click.option("--name", default="nemotron-ops", show_default=True, help="Name of all resources.")
@click.option("--namespace", default="default", show_default=True, help="Namespace.")
@click.option("--replicas", type=click.IntRange(1), default=2, show_default=True, help="Pods.")
@click.option("--profile", default="", help="Profile whose values become the server's defaults.")
@click.option(
    "--build-archive", default="", metavar="PATH",
    help="Archive of `builds export` in the image. [default: llama.cpp is built when a pod first starts]",
)  # fmt: skip
@click.option("--gpus", type=click.IntRange(0), default=1, show_default=True, help="GPUs per pod.")
@click.option(
    "--gpu-resource", default="nvidia.com/gpu", show_default=True, help="Resource name of a GPU in the cluster."
)
@click.option("--memory", default="48Gi", show_default=True, help="Memory per pod.")
@click.option("--cpus", default="8", show_default=True, help="CPUs per pod.")
@click.option("--storage", default="200Gi", show_default=True, help="Volume per pod, for models.")
@click.option("--storage-class", default="", help="Storage class of that volume.")
@click.option("--network-policy", is_flag=True, help="Also a NetworkPolicy: in by the port, out by DNS and HTTPS only.")
@json_option
def kubernetes(as_json: bool, **options: Any) -> None:
    """Write a StatefulSet with its Services and disruption budget, as YAML on stdout.

    Each replica keeps its build and its models on a volume of its own. Needs the secret NAME-api-keys with the key
    `api-keys` (made by `keys create --file`), and for gated models NAME-hub-token with `hub-token`.
    """
    from nemotron_ops.deploy.kubernetes import Workload, manifests, to_yaml

    with App() as app:
        name = options["name"]
        workload = Workload(**options, keys_secret=f"{name}-api-keys", token_secret=f"{name}-hub-token")
        documents = manifests(workload)
        app.ui.json(documents) if as_json else app.ui.data("---\n".join(to_yaml(d) for d in documents).rstrip())
