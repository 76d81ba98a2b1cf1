"""HAProxy's configuration for many hosts behind one door. Pure.

What it does for a model server, and where:

    readiness      GET /health of each host's gateway, which is 200 only while a model can answer
    slots          `maxconn` per host; what is more waits in HAProxy's queue, bounded in time
    warm prompts   one conversation goes to one host: consistent hashing over a session header, the request's
                   prompt_cache_key, or the first messages. A host that has more than its share (`hash-balance-factor`)
                   is passed over, because a cold prompt elsewhere beats a warm one in a queue
    a dead host    a request that no byte came back for is sent to another one. Open answers of a host that vanished
                   end after seconds, as broken ones; a failed check alone ends none (the gateway may continue them)
    deploys        one host at a time is drained through the runtime API (see `rollout`)
    names          looked up again while it runs; a host whose name nobody knows is down, and stops nobody else
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
        """Whether its host is a name that must be looked up."""
        host = self.address.rpartition(":")[0]
        return not (host.startswith("[") or host.replace(".", "").isdigit())


@dataclass(frozen=True, kw_only=True)
class Balancer:
    """What is asked of the balancer."""

    servers: tuple[Server, ...]
    slots: int = 4  # requests that one host works on at once
    bind: str = "127.0.0.1:8000"
    certificate: str = ""  # PEM file with key, for TLS
    stats: str = "127.0.0.1:8404"
    socket: str = SOCKET
    user: str = ""  # who HAProxy becomes where root starts it; its group has the same name
    chroot: str = ""
    queue_s: int = 600
    answer_s: int = 3600  # longest silence of a host: a long prompt may take this long to read
    # a host may have this share of the mean load before it is passed over. Small, because HAProxy queues at the host
    # that was chosen: with 200, requests waited for one host while another one had slots free
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
    """Requests that wait for a slot, at a host or at the door."""
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
    # requests up to this size are read whole: they can be hashed, and sent again to another host
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
    # the open answers of a host that vanished end after seconds, as broken ones: nobody waits for nothing (with tcp-ut,
    # also those whose request it had not acknowledged: then no probe is sent)
    option srvtcpka
    srvtcpka-idle 3s
    srvtcpka-intvl 1s
    srvtcpka-cnt 3
"""


def _resolvers(balancer: Balancer) -> str:
    """For hosts with names: those are asked of the C library at the start, then of the name servers."""
    if not any(s.named for s in balancer.servers):
        return ""
    return f"""\
resolvers names
    parse-resolv-conf
    accepted_payload_size 8192
    # what the C library found stays where name servers cannot tell: it may be from /etc/hosts
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
    # what belongs together: a session that the client names, or the beginning of the conversation
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
    # a host that is gone is known by failed connections before its check fails: bounded load may send a request that it
    # refused to it again, if few others are left
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
    # an answer that has not begun may come from another host; one that has begun is never patched together
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
