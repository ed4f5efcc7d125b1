"""What may come over a socket: requests of the grammar as bytes, and what only looks like one."""

from __future__ import annotations

from tests.api.fuzz_grammar import Grammar


def raw(grammar: Grammar) -> bytes:
    """A request as bytes, or what only looks like one. It asks for the connection to be closed, unless it lost that."""
    sent = grammar.request()
    method = (
        sent.method
        if grammar.sometimes(0.98)
        else grammar.one(("CONNECT", "FOO", "get", "G\x00T", "", "A" * 9000))
    )
    target = sent.url if sent.url.startswith("/") else f"/fhir/{sent.url}"
    target = grammar.one((target,) * 60 + (f"http://localhost{target}", "*", "http://[", target + " x"))
    version = grammar.one(("HTTP/1.1",) * 80 + ("HTTP/1.0", "HTTP/2.0", "HTTP/1.1 ", "", "HTTP/9"))
    body = sent.body or b""
    fields = [(name.encode(), value.encode("latin-1")) for name, value in sent.headers.items()]
    fields += [] if grammar.sometimes(0.02) or "Host" in sent.headers else [(b"Host", b"localhost:8080")]
    if grammar.sometimes(0.2):
        fields.append(
            (
                b"Transfer-Encoding",
                grammar.one((b"chunked",) * 30 + (b"gzip", b"chunked, chunked", b"xchunked")),
            )
        )
        body = chunked(grammar, body)
    elif body or grammar.sometimes(0.2):
        length = str(len(body) + grammar.one((0,) * 60 + (1, -1, 10**7))).encode()
        fields.append(
            (b"Content-Length", grammar.one((length,) * 60 + (b"x", b"+1", b"-1", b"1" * 5000, b"0x10")))
        )
    if grammar.sometimes(0.1):
        fields.append(grammar.one((
            (b"Expect", b"100-continue"), (b"Upgrade", b"h2c"), (b"X", b"x" * 70_000), (b"Content-Length", b"3"), (b"Host", b"b"),
            (b"X Y", b"z"), (b"", b"x"), (b"X\xff", b"\xff\x01"), (b"Transfer-Encoding", b"chunked"), (b" folded", b"x"),
        )))  # fmt: skip
    fields.append((b"Connection", b"close"))
    end = grammar.one((b"\r\n",) * 80 + (b"\n", b"\r"))
    line = f"{method} {target} {version}".encode("utf-8", "replace")
    data = end.join([line, *(name + b": " + value for name, value in fields), b"", b""]) + body
    if grammar.sometimes(0.05):
        data = grammar.garbled(data)
    return data * 2 if grammar.sometimes(0.05) else data


def chunked(grammar: Grammar, body: bytes) -> bytes:
    sizes = (b"%x" % len(body), b"%X;a=b" % len(body))
    size = grammar.one(sizes * 20 + (b"zz", b"", b"-1", b"f" * 20, b"%x" % (len(body) + 5), b"0"))
    last = grammar.one((b"0\r\n\r\n",) * 30 + (b"", b"0\r\nX: y\r\n\r\n", b"0\n\n", b"0\r\nbad\r\n\r\n"))
    return size + b"\r\n" + body + b"\r\n" + last
