"""Reserves tokens of shared contexts: estimates each request's need, learns from answers. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from nemotron_ops.gateway.api.routes import Route
from nemotron_ops.gateway.queue.reservation import MEDIA_TOKENS, Measure, answer_tokens, own_limit, prompt_bytes
from nemotron_ops.gateway.queue.ticket import Ticket
from nemotron_ops.gateway.request.counts import choices
from nemotron_ops.gateway.request.prepare import Prepared
from nemotron_ops.supervisor.snapshot import InstanceView


class Share(NamedTuple):
    """What a slot would have if its shared context were divided, and how many slots share it."""

    tokens: int
    slots: int


class Estimates:
    """Tokens per byte of each model's prompts, and the models whose slots share a context."""

    def __init__(self) -> None:
        self._shares: dict[str, Share] = {}
        self._measures: defaultdict[str, Measure] = defaultdict(Measure)

    def apply(self, instances: tuple[InstanceView, ...]) -> None:
        """Take over which instances share a context."""
        self._shares = {}
        for view in instances:
            if shared_tokens(view):
                slots = max(view.slots, self._shares[view.model].slots if view.model in self._shares else 0)
                self._shares[view.model] = Share(view.ctx_tokens // view.slots, slots)

    def reserve(self, ticket: Ticket, prepared: Prepared, route: Route) -> None:
        """Set how many tokens `ticket` needs, if it has to share a context with other requests."""
        share = self._shares.get(ticket.model)
        if share is None or ticket.light:
            return
        if route.form:  # the size of a sound file does not tell
            ticket.tokens = share.tokens
            return
        ticket.prompt_bytes, media = prompt_bytes(prepared.body)
        ticket.prompt_tokens = self._measures[ticket.model].estimate(ticket.prompt_bytes) + media * MEDIA_TOKENS
        at_once, each = 1, ticket.prompt_tokens
        if (count := prepared.answers) > 1:
            at_once = min(count, share.slots)
            each = each * choices(prepared.fields) // count  # each choice has a copy of the prompt
        ticket.tokens = at_once * each
        if route.generates:
            filled_in = prepared.named.filled_in.get("max_tokens")
            limit = own_limit(prepared.limits, filled_in)
            answer = answer_tokens(limit, filled_in, prompt_tokens=each, share_tokens=share.tokens)
            ticket.tokens = at_once * (each + answer)

    def learn(self, ticket: Ticket, prompt_tokens: int) -> None:
        """The answer to `ticket` reports that its prompt had `prompt_tokens`."""
        if ticket.prompt_bytes and ticket.answers == 1:
            self._measures[ticket.model].learn(ticket.prompt_bytes, prompt_tokens)

    def prompt_tokens(self, model: str, body: bytes) -> int:
        """About how many tokens the prompts in `body` have."""
        size_bytes, media = prompt_bytes(body)
        return self._measures[model].estimate(size_bytes) + media * MEDIA_TOKENS


def shared_tokens(instance: InstanceView) -> int:
    """The context that the slots of `instance` share; 0 if there is one slot, or each has its own."""
    return instance.ctx_tokens if instance.kv_unified and instance.slots > 1 else 0
