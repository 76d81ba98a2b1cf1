"""Renders manifests for Kubernetes. Pure.

The probes are those of the gateway: ready means `GET /health` with 200, which it answers only while a model can serve;
alive means that the port accepts connections, because a gateway that waits for its model must not be killed.

    init build      llama.cpp into the volume: built, or unpacked from an archive in the image; skipped once it is there
    init fetch-N    the model of each recipe into the volume, verified
    server          `serve --no-build --offline`: serves what is in the volume, starts without a network

The volume is mounted over the image's /data, so files that the image has there are hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What to run. `image` contains nemotron-ops, and a compiler or the archive of a build."""

    recipes: tuple[str, ...]
    image: str
    name: str = "nemotron-ops"
    namespace: str = "default"
    replicas: int = 2
    profile: str = ""
    build_archive: str = ""  # path in the image of an archive from `builds export`; "" to build in the init container
    gpus: int = 1
    gpu_resource: str = "nvidia.com/gpu"
    memory: str = "48Gi"
    cpus: str = "8"
    storage: str = "200Gi"
    storage_class: str = ""
    keys_secret: str = "nemotron-ops-api-keys"
    token_secret: str = "nemotron-ops-hub-token"
    port: int = 8001
    network_policy: bool = False
    load_s: int = 1800  # longest time for loading
    stop_s: int = 120  # preStop, draining (30 s) and each engine's SIGTERM, SIGTERM, SIGKILL fit in here


def manifests(w: Workload) -> list[dict[str, Any]]:
    """StatefulSet (each replica keeps its models), Services, PodDisruptionBudget, and if asked for a NetworkPolicy."""
    policies = [_network_policy(w)] if w.network_policy else []
    return [_headless(w), _service(w), _stateful_set(w), _budget(w), *policies]


def to_yaml(value: Any) -> str:
    """`value` (dicts, lists, strings, numbers, booleans) as the body of a YAML document."""
    return "\n".join(_lines(value, 0)) + "\n"


def _stateful_set(w: Workload) -> dict[str, Any]:
    claim: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": w.storage}},
        **({"storageClassName": w.storage_class} if w.storage_class else {}),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _metadata(w),
        "spec": {
            "serviceName": f"{w.name}-hosts",
            "replicas": w.replicas,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": _labels(w)},
            "template": {"metadata": {"labels": _labels(w)}, "spec": _pod(w)},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
        },
    }


def _pod(w: Workload) -> dict[str, Any]:
    return {
        "terminationGracePeriodSeconds": w.stop_s,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_build(w), *(_fetch(w, recipe, i) for i, recipe in enumerate(w.recipes))],
        "containers": [_server(w)],
        "volumes": [
            {"name": "keys", "secret": {"secretName": w.keys_secret, "defaultMode": 0o440}},
            {"name": "token", "secret": {"secretName": w.token_secret, "defaultMode": 0o440, "optional": True}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _server(w: Workload) -> dict[str, Any]:
    args = ["serve", *w.recipes, "--host", "0.0.0.0", "--port", str(w.port)]
    args += ["--no-build", "--offline"]
    args += ["--api-key-file", "/etc/nemotron-ops/keys/api-keys"]
    args += ["--profile", w.profile] if w.profile else []
    health = {"path": "/health", "port": "http"}
    return {
        **_container(w, "server"),
        "args": args,
        "ports": [{"name": "http", "containerPort": w.port}],
        # the pod takes traffic only while a model can answer
        "readinessProbe": {"httpGet": health, "periodSeconds": 2, "failureThreshold": 2},
        "startupProbe": {"httpGet": health, "periodSeconds": 5, "failureThreshold": -(-w.load_s // 5)},
        # the supervisor restarts engines inside the pod: only a port that refuses connections needs a new pod
        "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
        "resources": _resources(w),
        # the pod leaves the Service before it drains, so that no request still routed to it is refused
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "volumeMounts": [*_mounts(), {"name": "keys", "mountPath": "/etc/nemotron-ops/keys", "readOnly": True}],
    }


def _build(w: Workload) -> dict[str, Any]:
    """Builds or imports llama.cpp, with the pod's GPUs, which the build is made for and tested on."""
    args = ["builds", "import", w.build_archive] if w.build_archive else ["build", *_backend(w)]
    return {**_container(w, "build"), "args": args, "resources": _resources(w), "volumeMounts": _mounts()}


def _backend(w: Workload) -> list[str]:
    if not w.gpus:
        return ["--cpu"]
    vendors = {"nvidia.com": ["--cuda"], "amd.com": ["--hip"]}
    return vendors.get(w.gpu_resource.partition("/")[0], [])


def _resources(w: Workload) -> dict[str, Any]:
    limits: dict[str, Any] = {"memory": w.memory, **({w.gpu_resource: w.gpus} if w.gpus else {})}
    return {"requests": {"cpu": w.cpus, "memory": w.memory}, "limits": limits}


def _fetch(w: Workload, recipe: str, i: int) -> dict[str, Any]:
    return {
        **_container(w, f"fetch-{i}"),
        "args": ["fetch", recipe],
        "env": [*_env(), {"name": "HF_TOKEN_PATH", "value": "/etc/nemotron-ops/token/hub-token"}],
        "volumeMounts": [*_mounts(), {"name": "token", "mountPath": "/etc/nemotron-ops/token", "readOnly": True}],
    }


def _container(w: Workload, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": w.image,
        "command": ["nemotron-ops"],
        "env": _env(),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _env() -> list[dict[str, Any]]:
    """Writable folders: the user has no home in the image, whose file system is read-only."""
    places = {"NEMOTRON_OPS_HOME": "/data", "NEMOTRON_OPS_RUNTIME": "/tmp/run", "HOME": "/data"}
    return [{"name": name, "value": value} for name, value in places.items()]


def _mounts() -> list[dict[str, Any]]:
    return [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}]


def _headless(w: Workload) -> dict[str, Any]:
    """A name for each replica, for a balancer that routes by prompt cache."""
    ports = [{"name": "http", "port": w.port, "targetPort": "http"}]
    spec = {"clusterIP": "None", "selector": _labels(w), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(w, f"{w.name}-hosts"), "spec": spec}


def _service(w: Workload) -> dict[str, Any]:
    ports = [{"name": "http", "port": w.port, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(w),
        # a client stays on one replica, which has its prompts cached
        "spec": {"selector": _labels(w), "ports": ports, "sessionAffinity": "ClientIP"},
    }


def _budget(w: Workload) -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(w),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(w)}},
    }


def _network_policy(w: Workload) -> dict[str, Any]:
    """In: the one port, from pods of the namespace. Out: names, and HTTPS for source and models."""
    ports = (("UDP", 53), ("TCP", 53), ("TCP", 443))
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(w),
        "spec": {
            "podSelector": {"matchLabels": _labels(w)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": w.port}]}],
            "egress": [{"ports": [{"protocol": name, "port": port} for name, port in ports]}],
        },
    }


def _metadata(w: Workload, name: str = "") -> dict[str, Any]:
    return {"name": name or w.name, "namespace": w.namespace, "labels": _labels(w)}


def _labels(w: Workload) -> dict[str, str]:
    return {"app.kubernetes.io/name": "nemotron-ops", "app.kubernetes.io/instance": w.name}


def _lines(value: Any, depth: int) -> list[str]:
    pad = "  " * depth
    if isinstance(value, dict):
        out = []
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                out += [f"{pad}{_scalar(key)}:", *_lines(item, depth + 1)]
            else:
                out.append(f"{pad}{_scalar(key)}: {_scalar(item)}")
        return out
    out = []
    for item in value:
        if isinstance(item, (dict, list)) and item:
            first, *rest = _lines(item, depth + 1)
            out += [f"{pad}- {first.strip()}", *rest]
        else:
            out.append(f"{pad}- {_scalar(item)}")
    return out


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (dict, list)):
        return "{}" if isinstance(value, dict) else "[]"
    text = str(value)
    plain = text[:1].isalpha() and text.replace(".", "").replace("/", "").replace("-", "").isalnum()
    if plain and text.lower() not in ("true", "false", "yes", "no", "on", "off", "null", "y", "n"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
