"""What all requests share: pool, metrics, memory, outbox, and the streams in progress. asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from nemotron_ops.gateway.batches.folder import Folder
from nemotron_ops.gateway.loop.outbox import Outbox
from nemotron_ops.gateway.observe.metrics import Metrics
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.queue.denylist import Denylist
from nemotron_ops.gateway.queue.pool import Pool
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.responses.store import Store
from nemotron_ops.gateway.streams.kept import Memory


class Shared:
    """The state that requests have in common. `pages` renders the gateway's own pages, by path."""

    __slots__ = (
        "batch_made",
        "batches",
        "call_formats",
        "denylist",
        "loop",
        "memory",
        "metrics",
        "options",
        "outbox",
        "pages",
        "pool",
        "responses",
        "running",
        "steerable",
        "waiting_since",
    )  # fmt: skip

    def __init__(self, options: Options, metrics: Metrics, pages: Mapping[str, Callable[[], bytes]]) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.metrics = metrics
        self.pool = Pool(options, metrics)
        self.memory = Memory()
        self.denylist = Denylist()
        self.responses = Store(options.responses_folder, options.responses_mib << 20)
        self.batches = Folder(options.batches_folder, options.batches_mib << 20)
        self.batch_made: Callable[[], object] = lambda: None  # told when there is something to run
        self.running: set[Record] = set()
        self.outbox = Outbox(self.loop)
        self.pages = pages
        self.call_formats: dict[str, bool] = {}  # instance -> whether its template writes calls as Nemotron 3 does
        self.steerable: set[Record] = set()  # chat streams that accept `/v1/chat/completions/control`
        self.waiting_since: dict[Record, float] = {}  # streams at an instance: start, or time of the last comment
