"""Renders HAProxy's configuration for several hosts behind one endpoint, and reads its state. Pure.

What it does for a model server, and how:

    readiness      GET /health of each host's gateway, which is 200 only while a model can answer
    slots          `maxconn` per host; further requests wait in HAProxy's queue, for a limited time
    warm prompts   one conversation goes to one host: consistent hashing over a session header, the request's
                   prompt_cache_key, or the first messages. A host with more than its share (`hash-balance-factor`) is
                   skipped, because a cold prompt elsewhere beats a warm one in a queue
    a dead host    a request without any response byte is sent to another host. Open responses of a lost host are
                   aborted after seconds; a failed check alone aborts none (the gateway may continue them)
    deploys        one host at a time is drained through the runtime API (see `rollout`)
    names          resolved again at run time; a host whose name cannot be resolved is down, the others are unaffected
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MARK = "# made by nemotron-ops balancer; edits are overwritten"
BACKEND = "models"
LIGHT = "light"
SOCKET = "/run/haproxy/admin.sock"
LOOK_UP = " resolvers names init-addr last,libc,none"
HOLD_NAME = "20d"  # HAProxy's times end at 24 days


@dataclass(frozen=True, kw_only=True)
class Server:
    """One host: a name that HAProxy may use, and where its gateway listens."""

    name: str
    address: str  # host:port

    @property
    def named(self) -> bool:
        """Whether its host is a name that must be resolved."""
        host = self.address.rpartition(":")[0]
        return not (host.startswith("[") or host.replace(".", "").isdigit())


@dataclass(frozen=True, kw_only=True)
class Balancer:
    """The parameters of the configuration."""

    servers: tuple[Server, ...]
    slots: int = 4  # concurrent requests per host
    bind: str = "127.0.0.1:8000"
    certificate: str = ""  # PEM file with key, for TLS
    stats: str = "127.0.0.1:8404"
    socket: str = SOCKET
    user: str = ""  # user (and group) that HAProxy switches to when root starts it
    chroot: str = ""
    queue_s: int = 600
    answer_s: int = 3600  # longest silence of a host: prefill of a long prompt takes this long
    # A host with more than this share of the mean load is skipped. Small, because HAProxy queues at the chosen host:
    # with 200, requests waited for one host while another one had free slots.
    overload_percent: int = 125
    check_ms: int = 1000


def render(balancer: Balancer) -> str:
    """The whole haproxy.cfg (HAProxy 2.6 or newer)."""
    parts = [
        _globals(balancer),
        _resolvers(balancer),
        _stats(balancer),
        _frontend(balancer),
        _models(balancer),
        _light(balancer),
    ]
    return "\n".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """One host as HAProxy sees it (`show stat`)."""

    name: str
    status: str  # "UP", "DOWN", "DRAIN", "MAINT", with HAProxy's own additions
    running: int
    queued: int
    served: int
    failed: int
    retried: int


def parse_stat(csv: str) -> tuple[ServerState, ...]:
    """The hosts of the models backend in the answer to `show stat`."""
    lines = [line.split(",") for line in csv.splitlines() if line.strip()]
    if not lines:
        return ()
    header = [name.strip("# ") for name in lines[0]]
    rows = [dict(zip(header, line, strict=False)) for line in lines[1:]]
    hosts = [r for r in rows if r.get("pxname") == BACKEND and r.get("svname") not in ("BACKEND", "FRONTEND")]
    return tuple(_state(row) for row in hosts)


def waiting(csv: str) -> int:
    """Requests that wait for a slot, at a host or at the balancer."""
    lines = [line.split(",") for line in csv.splitlines() if line.strip()]
    column = [name.strip("# ") for name in lines[0]].index("qcur") if lines else 0
    return sum(int(line[column]) for line in lines[1:] if line[0] == BACKEND and line[column].isdigit())


def set_state(name: str, state: str) -> str:
    """The runtime command that takes a host out (`drain`) or puts it back (`ready`)."""
    return f"set server {BACKEND}/{name} state {state}"


def server_name(target: str) -> str:
    """A target as the name of a server: HAProxy takes letters, digits and `._-`."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in target.rpartition("@")[2])


def _globals(balancer: Balancer) -> str:
    drop = f"    user {balancer.user}\n    group {balancer.user}\n" if balancer.user else ""
    drop += f"    chroot {balancer.chroot}\n" if balancer.chroot else ""
    return f"""\
{MARK}
global
{drop}\
    log stdout format raw local0
    stats socket {balancer.socket} mode 600 level admin
    # requests up to this size are buffered, so that they can be hashed, and sent again to another host
    tune.bufsize 131072
    ssl-default-bind-options ssl-min-ver TLSv1.2
    hard-stop-after 10m

defaults
    mode http
    log global
    option httplog
    option dontlognull
    option http-keep-alive
    option http-no-delay
    option abortonclose
    timeout connect 3s
    timeout client {balancer.answer_s}s
    timeout server {balancer.answer_s}s
    timeout http-request 30s
    timeout http-keep-alive 60s
    timeout queue {balancer.queue_s}s
    timeout check 2s
    # open responses of a lost host are aborted after seconds (with tcp-ut, also those whose request it had not
    # acknowledged: then no probe is sent)
    option srvtcpka
    srvtcpka-idle 3s
    srvtcpka-intvl 1s
    srvtcpka-cnt 3
"""


def _resolvers(balancer: Balancer) -> str:
    """For hosts with names: the C library resolves them at the start, the name servers later."""
    if not any(s.named for s in balancer.servers):
        return ""
    return f"""\
resolvers names
    parse-resolv-conf
    accepted_payload_size 8192
    # keep the C library's result if name servers have none: it may come from /etc/hosts
    hold nx {HOLD_NAME}
    hold other {HOLD_NAME}
    hold refused {HOLD_NAME}
    hold timeout {HOLD_NAME}
    hold obsolete {HOLD_NAME}
"""


def _stats(balancer: Balancer) -> str:
    if not balancer.stats:
        return ""
    return f"""\
frontend stats
    bind {balancer.stats}
    stats enable
    stats uri /
    http-request use-service prometheus-exporter if {{ path /metrics }}
"""


def _frontend(balancer: Balancer) -> str:
    tls = f" ssl crt {balancer.certificate} alpn h2,http/1.1" if balancer.certificate else ""
    return f"""\
frontend openai
    bind {balancer.bind}{tls}
    use_backend {LIGHT} if METH_GET
    default_backend {BACKEND}
"""


def _models(balancer: Balancer) -> str:
    check = f"check inter {balancer.check_ms}ms fall 2 rise 1 maxconn {balancer.slots}"
    return f"""\
backend {BACKEND}
    option http-buffer-request
    # the key of a conversation: a session that the client names, or its first messages
    http-request set-var(txn.key) req.hdr(x-session-id) if {{ req.hdr(x-session-id) -m found }}
    http-request set-var(txn.key) req.body,json_query('$.prompt_cache_key') if !{{ var(txn.key) -m found }}
    http-request set-var(txn.m0) req.body,json_query('$.messages[0].content') if !{{ var(txn.key) -m found }}
    http-request set-var(txn.m1) req.body,json_query('$.messages[1].content') if !{{ var(txn.key) -m found }}
    http-request set-var(txn.key) var(txn.m0),concat(,txn.m1,) if !{{ var(txn.key) -m found }}
    http-request set-var(txn.key) req.body,bytes(0,1024) if !{{ var(txn.key) -m found }}
    balance hash var(txn.key)
    hash-type consistent
    hash-balance-factor {balancer.overload_percent}
{_RETRIES}\
    http-response set-header X-Served-By %s
    option httpchk GET /health
    http-check expect status 200
    # failed connections mark a lost host down before its check fails; otherwise bounded load could send a refused
    # request to it again, if few others are left
    default-server {check} tcp-ut 10s observe layer4 error-limit 2 on-error mark-down
{_lines(balancer, "")}"""


def _light(balancer: Balancer) -> str:
    return f"""\
# lists, health and metrics take no slot
backend {LIGHT}
    balance roundrobin
{_RETRIES}\
    default-server tcp-ut 10s
{_lines(balancer, f" track {BACKEND}/")}"""


_RETRIES = """\
    # a response that has not begun may come from another host; one that has begun is never continued by another
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response 502 503
"""


def _lines(balancer: Balancer, track: str) -> str:
    return "".join(
        f"    server {s.name} {s.address}{LOOK_UP if s.named else ''}{track + s.name if track else ''}\n"
        for s in balancer.servers
    )


def _state(row: Mapping[str, str]) -> ServerState:
    def number(key: str) -> int:
        return int(row[key]) if row.get(key, "").isdigit() else 0

    return ServerState(
        name=row["svname"],
        status=row.get("status", ""),
        running=number("scur"),
        queued=number("qcur"),
        served=number("stot"),
        failed=number("eresp") + number("econ"),
        retried=number("wretr") + number("wredis"),
    )
