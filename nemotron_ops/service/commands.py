"""The commands of a service: what it runs, and how its own program is run as its user. Pure."""

from __future__ import annotations

from nemotron_ops.service.spec import USER, ServiceSpec


def serve_argv(spec: ServiceSpec) -> tuple[str, ...]:
    """The command line of the service. It builds and fetches nothing; `service install` does that before the start."""
    words = [spec.program, "serve", *spec.recipes, "--host", spec.host, "--port", str(spec.port)]
    if spec.profile:
        words += ["--profile", spec.profile]
    words += ["--no-build", "--offline", *spec.options]
    if spec.api_keys and spec.system:
        words += ["--api-key-file", "${CREDENTIALS_DIRECTORY}/api-keys"]
    elif spec.key_file:
        words += ["--api-key-file", spec.key_file]
    return tuple(words)


def as_owner_argv(spec: ServiceSpec, *words: str) -> tuple[str, ...]:
    """The command that runs the program with `words` as the owner of builds and models."""
    if not spec.system:
        return (spec.program, *words)
    env = ("env", "NEMOTRON_OPS_SYSTEM=1", "HOME=/var/lib/nemotron-ops")
    return ("runuser", "-u", USER, "--", *env, spec.program, *words)


def build_words(spec: ServiceSpec) -> tuple[str, ...]:
    """The words of the command that makes the build this service needs."""
    if spec.gpu:
        return ("build", f"--{spec.gpu}")
    return ("build", "--cpu") if spec.gpu_asked == "none" else ("build",)


def lacks_build(spec: ServiceSpec, backend: str) -> str:
    """Why the current build, for `backend` ("" if there is none), does not suit the service; empty if it does."""
    if not backend:
        return "there is no build of llama.cpp"
    return f"the current build is for {backend}, not for {spec.gpu}" if spec.gpu not in ("", backend) else ""
