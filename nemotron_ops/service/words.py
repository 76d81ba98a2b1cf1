"""Command lines and addresses as systemd reads them. Pure."""

from __future__ import annotations


def address(host: str, port: int) -> str:
    """`host:port`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{'127.0.0.1' if host == 'localhost' else host}:{port}"


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def command(argv: tuple[str, ...]) -> str:
    """`argv` as the value of ExecStart=."""
    return " ".join(word(w) for w in argv)


def word(text: str) -> str:
    """One word of a command line, quoted as systemd.syntax(7) wants it; `${NAME}` alone is left to systemd."""
    if any(ord(c) < 32 for c in text):
        raise ValueError(f"control character in {text!r}")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if not escaped.startswith("${CREDENTIALS_DIRECTORY}"):
        escaped = escaped.replace("$", "$$")
    plain = escaped and all(c.isalnum() or c in "-_=./:,@+%${}" for c in escaped)
    return escaped if plain else f'"{escaped}"'
