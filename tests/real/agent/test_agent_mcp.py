"""An MCP server's tool called by a real engine's model, with the real `openai` package. Costs about 5 s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stages.agent import Served
from tests.stages.mcp_host import notes, written
from tests.stages.tool_model import SAID

pytestmark = pytest.mark.real
TOOL: Any = {"type": "mcp", "server_label": "notes", "require_approval": "never"}


def test_a_model_adds_a_note_at_an_mcp_server(served: Served, tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    written(served.home / "config", {"notes": notes(tmp_path / "server")})
    served.write("tools.json", '{"enabled": ["python", "web", "mcp"]}')
    try:
        assert served.command("tools", "mcp", "pin", "notes").returncode == 0
        got = served.openai_client.responses.create(model="m", input="please note", tools=[TOOL], max_output_tokens=200)
        assert [item.type for item in got.output if item.type != "reasoning"] == [
            "mcp_list_tools", "mcp_call", "message",
        ]  # fmt: skip
        call = next(item for item in got.output if item.type == "mcp_call")
        assert (json.loads(call.arguments), call.status) == ({"text": "milk"}, "completed")
        assert (got.status, got.output_text) == ("completed", SAID)
    finally:
        served.write("tools.json", '{"enabled": ["python", "web"]}')
