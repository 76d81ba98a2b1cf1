"""The result of an MCP call as text: what a model can read of it. Pure."""

from __future__ import annotations

import json

import mcp_types as types


def text_of(result: types.CallToolResult) -> str:
    """Texts and text resources in order; a line for what is no text; structured content where there is nothing else."""
    parts = [_part(block) for block in result.content]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _part(block: types.ContentBlock) -> str:
    match block:
        case types.TextContent():
            return block.text
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            return resource.text
        case types.ResourceLink():
            return f"[a link: {block.uri}]"
        case _:
            return f"[{block.type}: left out]"
