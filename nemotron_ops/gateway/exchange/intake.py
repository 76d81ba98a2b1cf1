"""Reads a request for a model: the body to send, and its place in the queue. Pure."""

from __future__ import annotations

from functools import partial

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.exchange.ollama_intake import prepare_ollama
from nemotron_ops.gateway.exchange.responses_intake import prepare_response
from nemotron_ops.gateway.queue.affinity import prefixes, session_of
from nemotron_ops.gateway.queue.pool import Pool
from nemotron_ops.gateway.queue.ticket import Ticket
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.request.documents import with_text_documents
from nemotron_ops.gateway.request.form import prepare_form
from nemotron_ops.gateway.request.prepare import Prepared, prepare
from nemotron_ops.gateway.shared import Shared
from nemotron_ops.gateway.streams.fold import Fold, fold_for


def prepare_request(record: Record, shared: Shared) -> Prepared:
    """What is sent to llama-server. Raises Refusal for a body that is not accepted."""
    if record.route.plain:
        return prepare(record.route, record.request.body, shared.pool.directory, record.key.models)
    request, directory, models = record.request, shared.pool.directory, record.key.models
    if record.route.form:
        resolve = partial(directory.resolve, only=models)
        return prepare_form(request.headers.get(b"content-type", b""), request.body, resolve)
    if record.route.api is Api.MESSAGES:
        return prepare(record.route, with_text_documents(request.body), directory, models)
    if record.route.api is Api.OLLAMA:
        return prepare_ollama(record, directory)
    return prepare_response(record, directory, shared.responses)


def folded_again(record: Record, prepared: Prepared) -> Fold | None:
    """A new fold for an answer that is asked for again from its beginning."""
    if prepared.fold is None:
        return None
    if record.conversion is None or (record.healing is not None and record.healing.folds):
        return fold_for(record.route.wire, prepared.fields)
    return record.conversion.fold()


def new_ticket(record: Record, pool: Pool, prepared: Prepared) -> Ticket:
    """The request's ticket, with the slots and tokens that it needs."""
    key, route = record.key, record.route
    ticket = Ticket(model=record.model, key=key.id, weight=key.weight, bytes=len(prepared.body))
    ticket.light = route.light
    ticket.answers = prepared.answers
    if route.generates and pool.replicated(record.model):
        ticket.prefixes = prefixes(
            route.wire, prepared.named.model.names[0], prepared.fields, session_of(record.request.headers)
        )
    pool.estimates.reserve(ticket, prepared, route)
    return ticket
