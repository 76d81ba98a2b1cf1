"""Downloads one file: resumable at any byte, hashed during the transfer. Threads, HTTP, disk.

Segments are claimed in order by one or more connections and written to a Partial; a hashing thread follows the
unbroken start of the file. More connections are opened while the transfer looks slow. Threads share one `_Run`: the
claimed segments, the first failure, whether to stop. Written bytes are always kept; only bytes with a wrong hash are
dropped.
"""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from nemotron_ops.errors import ModelError
from nemotron_ops.models import proof
from nemotron_ops.models.pace import LEAST_BYTES, Pace
from nemotron_ops.models.partial import Partial, Target
from nemotron_ops.models.ranges import Verdict, backoff_s, judge, one_more_connection
from nemotron_ops.models.refusals import Stalled
from nemotron_ops.models.web import Patience, Web
from nemotron_ops.progress import Report, Step

SEGMENT_BYTES = 64 << 20
RUN_SEGMENTS = 8  # of one request
CONNECTIONS = 8
TICK_S = 0.2
GROW_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Segments and connections of a transfer. The defaults suit files of gigabytes."""

    segment_bytes: int = SEGMENT_BYTES
    run_segments: int = RUN_SEGMENTS
    connections: int = CONNECTIONS
    grow_s: float = GROW_S


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a hub is asked: its timeouts and retries, and the segments and connections of a transfer."""

    patience: Patience = field(default_factory=Patience)
    speed: Speed = field(default_factory=Speed)


USUAL = Tuning()


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file to be fetched from `url` to `final`, by way of the file `partial`.

    `proof` is the hash it must have; with "" nothing proves it but its size.
    """

    url: str
    name: str
    size_bytes: int
    proof: str
    partial: Path
    final: Path


class Changed(ModelError):
    """The file on the server is not the one the transfer began with."""


def download(web: Web, item: Download, *, report: Report, speed: Speed | None = None) -> str:
    """Fetch `item` and verify its hash, which is returned.

    Bytes that an earlier run left in `item.partial` are kept. If the bytes of a resumed or changed file turn out wrong,
    the download starts over once. Raises ModelError; `item.final` is then as it was.
    """
    speed, name, final = speed or Speed(), item.name, item.final
    target = Target(name=name, size_bytes=item.size_bytes, proof=item.proof, segment_bytes=speed.segment_bytes)
    with Partial(item.partial, target) as part:
        if not item.proof and part.total:  # parts of two files could not be told apart
            part.reset()
        resumed = part.total > 0
        try:
            found = _transfer(_Run(web=web, url=item.url, part=part, speed=speed), report)
        except Changed:
            part.reset()
            report(Step(what=f"fetch {name}", note=f"{name} was replaced on the server: starting over"))
            again = _Run(web=web, url=item.url, part=part, speed=speed, any_etag=True)  # etags may differ by node
            found = _transfer(again, report)
        if found != item.proof and resumed:
            part.reset()
            report(Step(what=f"fetch {name}", note=f"the partial file of {name} is damaged: starting over"))
            found = _transfer(_Run(web=web, url=item.url, part=part, speed=speed), report)
        if found != item.proof and item.proof:
            part.reset()
            raise ModelError(
                f"cannot prove {name}: its hash is {found[:16]}…, the hub lists {item.proof[:16]}…",
                hint="the file was damaged in transfer, or replaced on the server; try again later",
            )
        try:
            part.finish(final)
        except OSError as exc:
            raise disk_error(exc, final) from exc
    return found


def disk_error(exc: OSError, path: Path) -> ModelError:
    """`exc` in words; a full disk is the common one."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError(
            f"cannot write {path}: the disk is full",
            hint="make room and run the same command again: it continues where it stopped",
        )
    return ModelError(f"cannot write {path}: {exc.strerror or exc}")


@dataclass(kw_only=True)
class _Run:
    """What the threads of one transfer share. `gate` guards all of it and every write to the Partial."""

    web: Web
    url: str
    part: Partial
    speed: Speed
    gate: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)
    moved: threading.Event = field(default_factory=threading.Event)
    claimed: set[int] = field(default_factory=set)
    failure: BaseException | None = None
    etag: str = ""
    any_etag: bool = False
    whole_only: bool = False  # the server ignores Range
    plain: bool = False  # the server's answers to Range are useless: none is sent
    hashed: int = 0
    digest: str = ""

    def claim(self) -> range | None:
        """Claim the next run of free segments; None if there is none."""
        with self.gate:
            free = next((i for i in range(self.part.target.segments) if self._free(i)), None)
            if free is None or (self.whole_only and self.claimed):
                return None
            last = free
            while last + 1 < self.part.target.segments and self._free(last + 1):
                if last + 1 - free >= self.speed.run_segments or self.part.done[last + 1]:
                    break
                last += 1
            run = range(free, last + 1)
            self.claimed.update(run)
            return run

    def extend(self, segment: int) -> bool:
        """Claim one more segment, unless another connection has it; a complete segment may be claimed."""
        with self.gate:
            if segment >= self.part.target.segments or segment in self.claimed:
                return False
            self.claimed.add(segment)
            return True

    def release(self, run: range) -> None:
        with self.gate:
            self.claimed.difference_update(run)

    def fail(self, exc: BaseException) -> None:
        with self.gate:
            self.failure = self.failure or exc
        self.stop.set()
        self.moved.set()

    def write(self, segment: int, data: memoryview) -> bool:
        """Store bytes; False if the transfer has been stopped and its files may be closed."""
        with self.gate:
            if self.stop.is_set():
                return False
            self.part.write(segment, data)
        self.moved.set()
        return True

    def _free(self, segment: int) -> bool:
        start, end = self.part.target.bounds(segment)
        return segment not in self.claimed and self.part.done[segment] < end - start


def _transfer(run: _Run, report: Report) -> str:
    """Fetch all missing bytes; returns the hash of the file. Afterwards no thread can write any more."""
    hasher = threading.Thread(target=_hash_along, args=(run,), daemon=True)
    workers = [threading.Thread(target=_work, args=(run,), daemon=True)]
    try:
        hasher.start()
        workers[0].start()
        _watch(run, workers, hasher, report)
    finally:
        with run.gate:
            run.stop.set()
        run.moved.set()
        hasher.join()
        for worker in workers:  # a worker that waits for a silent server ends by itself, and can no longer write
            worker.join(timeout=TICK_S)
    if run.failure:
        raise run.failure
    return run.digest


def _watch(run: _Run, workers: list[threading.Thread], hasher: threading.Thread, report: Report) -> None:
    """Report progress and add connections until the file is complete and hashed, or a thread failed."""
    size, name = run.part.target.size_bytes, run.part.target.name
    began, first = time.monotonic(), run.part.total
    grown = began
    while hasher.is_alive() and not run.failure:
        hasher.join(timeout=TICK_S)
        now, there = time.monotonic(), run.part.total
        rate = (there - first) / max(now - began, 1e-6)
        eta = (size - there) / rate if rate else None
        report(Step(what=f"fetch {name}", done=there, total=size, unit="B", rate_per_s=rate, eta_s=eta))
        if there == size:
            report(Step(what=f"check {name}", done=run.hashed, total=size, unit="B"))
        active = sum(w.is_alive() for w in workers)
        if now - grown >= run.speed.grow_s and not run.whole_only:
            grown = now
            if one_more_connection(
                active=active,
                most=run.speed.connections,
                rate_bytes_s=rate,
                left_bytes=size - there,
                run_bytes=run.speed.run_segments * run.speed.segment_bytes,
            ):
                workers.append(threading.Thread(target=_work, args=(run,), daemon=True))
                workers[-1].start()
        if not run.failure and active == 0 and run.part.total < size:  # segments were released after the last look
            workers.append(threading.Thread(target=_work, args=(run,), daemon=True))
            workers[-1].start()


def _hash_along(run: _Run) -> None:
    """Hash the file's unbroken start as it grows."""
    target = run.part.target
    digest = proof.start(target.proof, target.size_bytes)
    at = 0
    try:
        while at < target.size_bytes and not run.stop.is_set():
            run.moved.clear()
            ready = run.part.prefix
            if at == ready:
                run.moved.wait(TICK_S)
            while at < ready and not run.stop.is_set():
                piece = run.part.read(at, min(proof.PIECE, ready - at))
                digest.update(piece)
                at += len(piece)
                run.hashed = at
        run.digest = digest.hexdigest() if at == target.size_bytes else ""
    except Exception as exc:  # noqa: BLE001  carried to the caller's thread
        run.fail(exc)


def _work(run: _Run) -> None:
    """One connection: claims and fetches runs of segments until none are left."""
    patience, failures = run.web.patience, 0
    try:
        while not run.stop.is_set() and (claimed := run.claim()) is not None:
            before = run.part.total
            try:
                _fetch_run(run, claimed)
                failures = 0
            except Stalled as exc:
                failures = failures + 1 if run.part.total - before < LEAST_BYTES else 1
                if failures >= patience.tries:
                    raise
                wait = backoff_s(
                    failures, first_s=patience.backoff_s, most_s=patience.backoff_max_s, advice_s=exc.retry_after_s
                )
                run.stop.wait(wait)
            finally:
                run.release(claimed)
    except OSError as exc:
        run.fail(disk_error(exc, run.part.path))
    except Exception as exc:  # noqa: BLE001  carried to the caller's thread
        run.fail(exc)


def _fetch_run(run: _Run, claimed: range) -> None:
    """Fetch the missing bytes of the claimed segments in one request."""
    target = run.part.target
    start = target.bounds(claimed[0])[0] + run.part.done[claimed[0]]
    end = target.bounds(claimed[-1])[1]
    asked = {} if run.plain else {"start": start, "end": end}
    with run.web.get(run.url, **asked) as response:
        answer = judge(
            response.status_code, response.headers, start=start, end=end, size=target.size_bytes, etag=run.etag
        )
        match answer.verdict:
            case Verdict.CHANGED:
                raise Changed(f"cannot fetch {target.name}: {answer.why}")
            case Verdict.WRONG:
                raise ModelError(f"cannot fetch {target.name}: {answer.why}", hint="check HF_ENDPOINT and any proxy")
            case Verdict.PLAIN if run.plain:
                raise ModelError(f"cannot fetch {target.name}: {answer.why}", hint="check HF_ENDPOINT and any proxy")
            case Verdict.PLAIN:
                run.plain = run.whole_only = True
                return
            case Verdict.SKIP:
                run.whole_only = True
            case Verdict.TAKE:
                pass
        run.etag = run.etag or ("" if run.any_etag else response.headers.get("etag", ""))
        whole = response.status_code == 200
        _store(run, claimed, response, at=0 if whole else start, whole=whole)


def _store(run: _Run, claimed: range, response: httpx.Response, *, at: int, whole: bool) -> None:
    """Write the body, whose first byte is byte `at` of the file, into the claimed segments.

    A whole body continues into the following segments, as long as they are free.
    """
    target = run.part.target
    segment = claimed[0]
    own = [segment]
    pace = Pace(stall_s=run.web.patience.stall_s, name=target.name)
    try:
        for chunk in response.iter_raw():
            pace.check(chunk)
            view = memoryview(chunk)
            while view:
                start, end = target.bounds(segment)
                wanted = start + run.part.done[segment]
                if at < wanted:  # bytes that are present already
                    skipped = min(len(view), wanted - at)
                    at, view = at + skipped, view[skipped:]
                    continue
                if wanted == end:
                    segment += 1
                    if segment not in claimed and not (whole and run.extend(segment)):
                        _check_end(target, segment, whole=whole)
                        return
                    own.append(segment)
                    continue
                piece = view[: end - wanted]
                if not run.write(segment, piece):
                    return
                at, view = at + len(piece), view[len(piece) :]
    finally:
        run.release(range(own[0], own[-1] + 1))
    last = claimed[-1] if not whole else own[-1]
    if at < target.bounds(last)[1]:
        raise Stalled(f"cannot fetch {target.name}: the connection was closed early")


def _check_end(target: Target, segment: int, *, whole: bool) -> None:
    """Accept a byte beyond the claimed segments in a whole body; elsewhere raise ModelError."""
    if segment >= target.segments or not whole:
        raise ModelError(f"cannot fetch {target.name}: the server sent more than was requested")
