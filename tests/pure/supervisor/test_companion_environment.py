"""The environment of a companion, which faces the network."""

from __future__ import annotations

from nemotron_ops.supervisor.companion import without_secrets


def test_no_secret_of_the_users_environment_reaches_a_companion() -> None:
    secrets = (
        "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
        "AZURE_CLIENT_ID", "GOOGLE_APPLICATION_CREDENTIALS", "OPENAI_API_KEY", "PGPASSWORD", "SSH_AUTH_SOCK",
        "LISTEN_FDS", "my_secret",
    )  # fmt: skip
    kept = {"PATH": "/bin", "HOME": "/h", "XDG_STATE_HOME": "/s", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=1"}
    assert without_secrets(dict.fromkeys(secrets, "x") | kept) == kept
