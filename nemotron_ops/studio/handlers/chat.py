"""Chats, messages, answers, files, exports. Starlette."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import asdict, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from nemotron_ops.studio import pdf_text
from nemotron_ops.studio.handlers.asked import Refusal, answer, bounded_body, json_of, shared, text
from nemotron_ops.studio.render.growing import whole
from nemotron_ops.studio.shared import Shared
from nemotron_ops.studio.threads.export import KINDS, exported
from nemotron_ops.studio.threads.store import Chat, new_id
from nemotron_ops.studio.threads.tree import Attachment, Message, Tree
from nemotron_ops.studio.turns.request import Settings, as_json, body, settings_of
from nemotron_ops.studio.turns.state import MAY_CONTINUE, RUNNING, TurnState

WINDOW = 20  # messages of a page; earlier ones come when asked for
MOST_FILE = 32 << 20
PICTURES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
SHA = re.compile(r"[0-9a-f]{64}")


async def chats(request: Request) -> Response:
    """The list of chats, or of those that hold some words."""
    words, archived = request.query_params.get("words", ""), request.query_params.get("archived") == "1"
    found = await asyncio.to_thread(shared(request).store.chats, words=words[:200], archived=archived)
    return answer([_listed(chat) for chat in found])


async def create(request: Request) -> Response:
    """A new chat."""
    here, value = shared(request), await json_of(request)
    settings = as_json(_settings(value))
    chat = await asyncio.to_thread(here.store.create, text(value, "title", default="", most=1000), settings)
    return answer({"id": chat.id}, 201)


async def show(request: Request) -> Response:
    """A chat: its settings, the end of its branch, and the number from which its feed goes on."""
    here, chat = shared(request), await _chat(request)
    at = here.feed.now(chat.id)
    tree = Tree(await asyncio.to_thread(here.store.messages, chat.id))
    branch = tree.branch(chat.leaf)
    before = request.query_params.get("before", "")
    end = next((n for n, m in enumerate(branch) if m.id == before), len(branch)) if before else len(branch)
    window = branch[max(0, end - WINDOW) : end]
    views = [await asyncio.to_thread(_view, here, tree, message) for message in window]
    return answer(
        {
            **_listed(chat),
            "settings": dict(chat.settings),
            "draft": chat.draft,
            "at": at,
            "messages": views,
            "earlier": end > WINDOW,
        }
    )


async def change(request: Request) -> Response:
    """Change a chat: title, pinned, archived, draft, the branch that is shown, settings; or delete it."""
    here, chat, value = shared(request), await _chat(request), await json_of(request)
    if value.get("delete") is True:
        for turn in [t for t in here.turns.running.values() if t.message.chat == chat.id]:
            here.turns.stop(turn.message.id)
        await asyncio.to_thread(here.store.delete, chat.id)
        return answer({"ok": True})
    if "settings" in value:
        await asyncio.to_thread(here.store.set_settings, chat.id, as_json(_settings(value)))
    changed: dict[str, Any] = {n: text(value, n, most=500_000) for n in ("title", "draft") if n in value}
    changed |= {n: int(bool(value[n])) for n in ("pinned", "archived") if n in value}
    if "show" in value:
        tree = Tree(await asyncio.to_thread(here.store.messages, chat.id))
        changed["leaf"] = tree.leaf_below(text(value, "show"))
    if changed:
        await asyncio.to_thread(here.store.change, chat.id, **changed)
    return answer({"ok": True})


async def ask(request: Request) -> Response:
    """Add a question below `parent`, and begin its answer."""
    here, chat, value = shared(request), await _chat(request), await json_of(request)
    settings = _settings(value) if "settings" in value else settings_of(chat.settings)
    content, parent = text(value, "content"), text(value, "parent", default=chat.leaf)
    attachments = tuple(_attachment(a) for a in value.get("attachments") or [])
    if not content.strip() and not attachments:
        raise Refusal(400, "write a question first")
    await _check_parent(here, chat, parent)
    question = Message(
        id=new_id(), chat=chat.id, parent=parent, role="user", content=content, created_s=time.time(),
        attachments=attachments,
    )  # fmt: skip
    await asyncio.to_thread(here.store.add, question)
    named: dict[str, Any] = {"draft": ""}
    if not chat.title:
        from nemotron_ops.studio.threads.store import title_of

        named["title"] = title_of(content) or (attachments[0].name if attachments else "")
    await asyncio.to_thread(here.store.change, chat.id, **named)
    turn = await here.turns.begin(chat.id, question.id, settings)
    return answer({"question": question.id, "turn": turn.message.id}, 201)


async def regenerate(request: Request) -> Response:
    """Another answer to the question of an answer, beside it."""
    here, message, value = shared(request), await _message(request), await json_of(request)
    chat = await asyncio.to_thread(here.store.chat, message.chat)
    assert chat is not None
    settings = _settings(value) if "settings" in value else settings_of(chat.settings)
    turn = await here.turns.begin(chat.id, message.parent, settings)
    return answer({"turn": turn.message.id}, 201)


async def go_on(request: Request) -> Response:
    """Continue an answer where it ended."""
    here, message = shared(request), await _message(request)
    if message.role != "assistant" or message.id in here.turns.running:
        raise Refusal(409, "this answer is still being written")
    chat = await asyncio.to_thread(here.store.chat, message.chat)
    assert chat is not None
    kept = message.made_by.get("settings")
    settings = settings_of(kept if isinstance(kept, dict) else chat.settings)
    await here.turns.go_on(message, replace(settings, keep_thinking=True))
    return answer({"turn": message.id}, 201)


async def stop(request: Request) -> Response:
    """Stop a running answer."""
    return answer({"stopped": shared(request).turns.stop(request.path_params["message"])})


async def end_thinking(request: Request) -> Response:
    """End the thinking of a running answer now."""
    return answer({"ended": await shared(request).turns.end_thinking(request.path_params["message"])})


async def edit(request: Request) -> Response:
    """Replace what an answer says; what follows stays. The former text is kept beside it."""
    here, message, value = shared(request), await _message(request), await json_of(request)
    if message.role != "assistant" or message.id in here.turns.running:
        raise Refusal(409, "only a whole answer can be edited; ask a question anew instead")
    content = text(value, "content")
    made_by = {**message.made_by, "edited": True, "before_edit": message.made_by.get("before_edit", message.content)}
    await asyncio.to_thread(here.store.update, replace(message, content=content, made_by=made_by))
    tree = Tree(await asyncio.to_thread(here.store.messages, message.chat))
    return answer(await asyncio.to_thread(_view, here, tree, tree.by_id[message.id]))


async def fork(request: Request) -> Response:
    """A new chat with the branch up to a message."""
    here, message = shared(request), await _message(request)
    chat = await asyncio.to_thread(here.store.chat, message.chat)
    assert chat is not None
    branch = Tree(await asyncio.to_thread(here.store.messages, chat.id)).branch(message.id)
    made = await asyncio.to_thread(here.store.create, chat.title, dict(chat.settings))
    parent = ""
    for one in branch:
        copied = replace(one, id=new_id(), chat=made.id, parent=parent)
        await asyncio.to_thread(here.store.add, copied)
        parent = copied.id
    return answer({"id": made.id}, 201)


async def count(request: Request) -> Response:
    """How many tokens the next request has, and how many the context holds."""
    here, chat, value = shared(request), await _chat(request), await json_of(request)
    request_body = await _next_request(here, chat, value)
    status, found = await here.gateway.post("/chat/completions/input_tokens", request_body)
    return answer({"tokens": found.get("input_tokens") if status == 200 and isinstance(found, dict) else None})


async def preview(request: Request) -> Response:
    """The next request's prompt as the model reads it."""
    here, chat, value = shared(request), await _chat(request), await json_of(request)
    request_body = await _next_request(here, chat, value)
    status, found = await here.gateway.post("/apply-template", request_body, native=True)
    if status != 200 or not isinstance(found, dict):
        raise Refusal(502, "the engine does not show its prompt")
    return answer({"prompt": found.get("prompt", ""), "request": request_body})


async def upload(request: Request) -> Response:
    """Keep a file: its text where it has one, its bytes where the model may see them."""
    here = shared(request)
    name = request.query_params.get("name", "file")[:200]
    data = await bounded_body(request, MOST_FILE)
    kind = request.headers.get("x-file-type", "")
    mime = kind if kind in PICTURES else "text/plain"
    words = "" if mime in PICTURES else await _text_of(name, data)
    sha = await asyncio.to_thread(here.store.keep_file, data)
    return answer(asdict(Attachment(name=name, mime=mime, sha256=sha, size_bytes=len(data), text=words)), 201)


async def file(request: Request) -> Response:
    """The bytes of a picture that was attached."""
    sha = request.path_params["sha256"]
    path = shared(request).store.file(sha)
    if not SHA.fullmatch(sha) or not path.is_file():
        raise Refusal(404, "there is no such file")
    kind = request.query_params.get("type", "")
    headers = {"Content-Disposition": "inline" if kind in PICTURES else "attachment", "Cache-Control": "private"}
    return FileResponse(path, media_type=kind if kind in PICTURES else "application/octet-stream", headers=headers)


async def export(request: Request) -> Response:
    """The shown branch of a chat as a file."""
    here, chat = shared(request), await _chat(request)
    kind = request.path_params["kind"]
    if kind not in KINDS:
        raise Refusal(404, f"known formats: {', '.join(KINDS)}")
    branch = Tree(await asyncio.to_thread(here.store.messages, chat.id)).branch(chat.leaf)
    made = exported(kind, chat.title, str(chat.settings.get("system") or ""), branch)
    headers = {"Content-Disposition": f'attachment; filename="chat-{chat.id}.{kind}"'}
    return Response(made, media_type=KINDS[kind] + "; charset=utf-8", headers=headers)


async def presets(request: Request) -> Response:
    """Named settings; a POST keeps or (with `remove`) removes one."""
    here = shared(request)
    if request.method == "POST":
        value = await json_of(request)
        name = text(value, "name", most=100).strip()
        if not name:
            raise Refusal(400, "name: expected a text")
        kept = None if value.get("remove") is True else as_json(_settings(value))
        await asyncio.to_thread(here.store.set_preset, name, kept)
    return answer(await asyncio.to_thread(here.store.presets))


# what requests name


async def _chat(request: Request) -> Chat:
    found = await asyncio.to_thread(shared(request).store.chat, request.path_params["chat"])
    if found is None:
        raise Refusal(404, "there is no such chat")
    return found


async def _message(request: Request) -> Message:
    found = await asyncio.to_thread(shared(request).store.message, request.path_params["message"])
    if found is None:
        raise Refusal(404, "there is no such message")
    return found


async def _check_parent(here: Shared, chat: Chat, parent: str) -> None:
    if not parent:
        return
    found = await asyncio.to_thread(here.store.message, parent)
    if found is None or found.chat != chat.id:
        raise Refusal(404, "the message before is not in this chat")
    if found.state in map(str, RUNNING):
        raise Refusal(409, "the answer before is still being written")


async def _next_request(here: Shared, chat: Chat, value: dict[str, Any]) -> dict[str, Any]:
    settings = _settings(value) if "settings" in value else settings_of(chat.settings)
    branch = Tree(await asyncio.to_thread(here.store.messages, chat.id)).branch(
        text(value, "parent", default=chat.leaf)
    )
    if content := text(value, "content", default=""):
        branch.append(Message(id="", chat=chat.id, parent="", role="user", content=content))
    made = body(branch, settings)
    return {k: v for k, v in made.items() if k not in ("stream", "stream_options")}


def _settings(value: dict[str, Any]) -> Settings:
    given = value.get("settings") or {}
    if not isinstance(given, dict):
        raise Refusal(400, "settings: expected an object")
    try:
        return settings_of(given)
    except ValueError as exc:
        raise Refusal(400, str(exc)) from exc


def _attachment(value: Any) -> Attachment:
    try:
        made = Attachment(**value)
    except TypeError as exc:
        raise Refusal(400, "attachments: send what the upload answered") from exc
    if not SHA.fullmatch(made.sha256):
        raise Refusal(400, "attachments: send what the upload answered")
    return made


async def _text_of(name: str, data: bytes) -> str:
    if name.lower().endswith(".pdf") or data.startswith(b"%PDF-"):
        try:
            return await pdf_text.text_of(data)
        except pdf_text.Unreadable as exc:
            raise Refusal(415, str(exc)) from exc
    if b"\x00" in data[:8192] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Refusal(415, "this file is neither text, PDF nor a picture")
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return data.decode(encoding, errors="replace")


def _listed(chat: Chat) -> dict[str, Any]:
    names = ("id", "title", "updated_s", "pinned", "archived", "leaf")
    return {name: getattr(chat, name) for name in names}


def _view(here: Shared, tree: Tree, message: Message) -> dict[str, Any]:
    """A message as the page shows it; a running one as it stands."""
    if (turn := here.turns.running.get(message.id)) is not None:
        message = turn.now
    siblings = tree.siblings(message.id)
    pictures = [f"/files/{a.sha256}?type={a.mime}" for a in message.attachments if a.mime in PICTURES]
    files = [{"name": a.name, "size_bytes": a.size_bytes} for a in message.attachments if a.mime not in PICTURES]
    return {
        "id": message.id, "parent": message.parent, "role": message.role, "state": message.state,
        "error": message.error, "content": message.content,
        "html": whole(message.content), "thinking": whole(message.thinking) if message.thinking else [],
        "made_by": dict(message.made_by), "siblings": siblings, "pictures": pictures, "files": files,
        "may_continue": (message.role == "assistant" and message.state in map(str, MAY_CONTINUE - {TurnState.FAILED}))
        or (message.state == "failed" and bool(message.content)),
    }  # fmt: skip
