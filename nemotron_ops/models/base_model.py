"""The model that a GGUF file was made from: named by its header, with small files on the hub. HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from nemotron_ops.errors import ModelError, UsageError
from nemotron_ops.hub_names import REPO, read_hub_name
from nemotron_ops.models.gguf import Header
from nemotron_ops.models.hub import token_of
from nemotron_ops.models.pace import Pace
from nemotron_ops.models.refusals import Stalled
from nemotron_ops.models.web import Patience, Web

FILE_BYTES = 1 << 20
URL = "general.base_model.0.repo_url"


def base_model(header: Header, env: Mapping[str, str]) -> str:
    """The repository of the model that `header` was converted from; "" where it names none on the hub in use."""
    url = header.values.get(URL, "")
    if isinstance(url, str) and url:
        try:
            named = read_hub_name(url, env)
        except UsageError:
            named = None
        if named is not None:
            return named.repo
    owner, name = (header.values.get(f"general.base_model.0.{key}", "") for key in ("organization", "name"))
    spelled = re.sub(r"\s+", "-", f"{owner}/{name}".strip())
    return spelled if owner and name and REPO.fullmatch(spelled) else ""


def small_file(repo: str, name: str, env: Mapping[str, str]) -> str:
    """The text of a small file in a repository; "" where there is none. One try.

    Raises Stalled if the hub cannot be reached, ModelError if it refuses otherwise or the file is no small text.
    """
    patience = replace(Patience(), tries=1)
    kept = bytearray()
    with Web(env, token=token_of(env), patience=patience) as web:
        try:
            with web.get(web.file_url(repo, "main", name), end=FILE_BYTES) as response:
                pace = Pace(stall_s=patience.stall_s, name=name)
                for chunk in response.iter_raw():
                    pace.check(chunk)
                    kept += chunk
                    if len(kept) > FILE_BYTES:
                        raise ModelError(f"cannot use {name} of {repo}: it has more than {FILE_BYTES:,} bytes")
        except Stalled:
            raise
        except ModelError as exc:
            if not kept:
                return ""  # there is no such repository or file, or it is gated
            raise exc
    return kept.decode(errors="replace")
