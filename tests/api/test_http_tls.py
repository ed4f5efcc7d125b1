"""TLS without a proxy: what clients with and without it get, links and headers, and a certificate that is exchanged."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from falcon.testing import TestClient

from api.app import create_app
from api.channel import Stage
from api.proxy import is_secure, networks
from api.server import bind, server
from api.tls import RECORD, SecureChannel, context
from gitstore import Invalid, Settings
from tests.api.wires import PATIENCE, Driven, certificate, dispose, status_of

CLOSE = b"Host: localhost\r\nConnection: close\r\n\r\n"
HSTS = "max-age=31536000"


def echo(environ, start_response):
    """The body, or as many bytes as the path says."""
    body = environ["wsgi.input"].read() or b"x" * int(environ["PATH_INFO"].strip("/") or 2)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"))


class Secured:
    """A server with TLS on a free port, in a thread."""

    def __init__(self, app, pair):
        self.pair = pair
        listener = bind("127.0.0.1", 0)
        self.address = listener.getsockname()
        made = context(pair.certificate, pair.key)
        self.server = server(app, listener, threads=4, max_body=20_000_000, tls=made)
        self._thread = threading.Thread(target=self.server.serve, args=(os.getppid(),))
        self._thread.start()

    def connect(self, trusting=None, **options):
        plain = socket.create_connection(self.address, timeout=PATIENCE)
        trusting = trusting or self.pair.trusting()
        return trusting.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False, **options)

    def client(self):
        return http.client.HTTPSConnection(
            "localhost", self.address[1], context=self.pair.trusting(), timeout=PATIENCE
        )

    def stop(self):
        self.server.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        dispose(self.server)


@pytest.fixture(scope="module")
def secured(pair):
    running = Secured(echo, pair)
    yield running
    running.stop()


def read_to_end(connection):
    """Until close_notify: with suppress_ragged_eofs=False an end without it raises."""
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


def test_a_request_is_answered_and_the_connection_closed_as_tls_wants_it(secured):
    """close_notify: an answer that was cut off is not taken for a whole one. https://www.rfc-editor.org/rfc/rfc8446#section-6.1"""
    with secured.connect() as connection:
        connection.sendall(b"GET /5 HTTP/1.1\r\n" + CLOSE)
        answer = read_to_end(connection)

    assert status_of(answer) == 200
    assert answer.endswith(b"\r\n\r\nxxxxx")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_1_2_and_1_3_are_spoken(secured, version):
    trusting = secured.pair.trusting()
    trusting.minimum_version = trusting.maximum_version = version
    with secured.connect(trusting) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + CLOSE)

        assert status_of(read_to_end(connection)) == 200


def test_older_versions_are_refused(secured):
    """https://www.rfc-editor.org/rfc/rfc8996"""
    trusting = secured.pair.trusting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        trusting.minimum_version = ssl.TLSVersion.TLSv1
        trusting.maximum_version = ssl.TLSVersion.TLSv1_1
    trusting.set_ciphers("ALL:@SECLEVEL=0")

    with pytest.raises(ssl.SSLError, match=r"(?i)protocol"):
        secured.connect(trusting)


def test_http_1_1_is_agreed_upon(secured):
    """ALPN: a client that could speak HTTP/2, too. https://www.rfc-editor.org/rfc/rfc7301"""
    trusting = secured.pair.trusting()
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with secured.connect(trusting) as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("size", [1, RECORD - 1, RECORD, RECORD + 1, 5_000_000])
def test_what_goes_through_comes_out_the_same(secured, size):
    """Both ways, in as many records as it takes."""
    body = os.urandom(size)
    connection = secured.client()
    for _ in range(2):
        connection.request("POST", "/", body)
        assert connection.getresponse().read() == body
    connection.close()


def test_many_requests_in_one_record_are_all_answered(secured):
    """What OpenSSL has unpacked already, no poll() tells of."""
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    many = request * (RECORD // len(request) - 3)
    with secured.connect() as connection:
        connection.sendall(many + b"GET / HTTP/1.1\r\n" + CLOSE)
        answers = read_to_end(connection)

    assert answers.count(b"HTTP/1.1 200") == many.count(b"GET") + 1


def test_a_request_may_come_byte_by_byte(secured):
    """Each in a record of its own."""
    with secured.connect() as connection:
        for byte in b"GET /3 HTTP/1.1\r\n" + CLOSE:
            connection.send(bytes([byte]))

        assert read_to_end(connection).endswith(b"xxx")


def test_parallel_requests_with_large_answers(secured):
    """Threads send while the loop reads: OpenSSL takes two at once badly."""

    def ask(number):
        connection = secured.client()
        lengths = []
        for turn in range(15):
            connection.request("GET", f"/{1 + turn * number * 10_000}")
            lengths.append(len(connection.getresponse().read()))
        connection.close()
        return lengths == [1 + turn * number * 10_000 for turn in range(15)]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(8)))


def test_a_stop_closes_what_is_idle_and_finishes_the_rest(pair):
    """As without TLS; a client in the middle of its handshake is given the time for it."""
    running = Secured(echo, pair)
    with running.connect() as idle, running.connect() as late:
        late.sendall(b"GET /5 HTTP/1.1\r\nHost: localhost\r\n")
        plain = socket.create_connection(running.address, timeout=PATIENCE)
        running.server.stop()
        assert idle.recv(1) == b"", "closed with close_notify"
        late.sendall(b"\r\n")
        answer = read_to_end(late)
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(b"xxxxx")
        plain.close()
    running.stop()


@pytest.fixture
def driven(pair):
    made = Driven(echo, tls=context(pair.certificate, pair.key))
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"GET / HTTP/1.1\r\n" + CLOSE, "no TLS with 127.0.0.1: it speaks plain HTTP"),
        (b"\x00" * 100, "no TLS with 127.0.0.1: wrong version number"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no TLS with 127.0.0.1: wrong version number"),
    ],
)
def test_who_speaks_no_tls_is_closed_with_one_line(driven, caplog, sent, said):
    """At level info: it is an everyday thing. The end is clean: what the client has sent causes no reset."""
    caplog.set_level("INFO")
    client = driven.connect()
    client.sendall(sent + b"x" * 100_000)

    answer = driven.read(client)

    assert not answer.startswith(b"HTTP")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("INFO", said)]
    assert caplog.records[0].exc_info is None


def test_who_goes_before_the_handshake_leaves_no_line(driven, caplog):
    """Health checks of load balancers connect and close."""
    caplog.set_level("INFO")
    driven.connect().close()
    half = driven.connect()
    half.sendall(b"\x16\x03\x01\x02\x00")
    driven.turn()
    half.close()

    driven.turn_until(lambda: not driven.channels)

    assert caplog.records == []


def test_reading_that_has_to_write_first_waits_until_it_can(driven):
    """A change of keys is answered inside of a read; with the socket full, it is the socket's room that is waited for."""
    client = driven.connect()
    driven.turn_until(lambda: driven.channels)
    [channel] = driven.channels
    assert isinstance(channel, SecureChannel)
    channel.shaking = False
    assert (channel.readable(), bool(channel.writable())) == (True, False)

    channel._secure.wants_to_write = True

    assert bool(channel.writable())
    channel.handle_write()
    assert not channel._secure.wants_to_write, "the read was tried again"
    assert channel.stage() == Stage(("idle", 0), 120.0)
    client.close()


def test_links_are_https_and_hsts_is_said(store, clock, pair, patient):
    """wsgi.url_scheme; https://www.rfc-editor.org/rfc/rfc6797#section-7.1, errors of every kind included."""
    running = Secured(create_app(store, clock=clock), pair)
    try:
        connection = running.client()
        base = f"https://localhost:{running.address[1]}/fhir"
        connection.request(
            "PUT", "/fhir/Patient/example", json.dumps(patient), {"Content-Type": "application/fhir+json"}
        )
        written = connection.getresponse()
        written.read()
        assert written.headers["Location"] == f"{base}/Patient/example/_history/1"
        assert written.headers["Strict-Transport-Security"] == HSTS
        for path, status in (("/fhir/metadata", 200), ("/nowhere", 404), ("/health", 200)):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert (answer.status, answer.headers["Strict-Transport-Security"]) == (status, HSTS)
        connection.close()
        with running.connect() as raw:
            raw.sendall(b"nonsense\r\n\r\n")
            assert b"\r\nStrict-Transport-Security: max-age=31536000\r\n" in read_to_end(raw)
    finally:
        running.stop()


def test_hsts_is_not_said_without_tls(client):
    """Over plain HTTP anybody could have said it. https://www.rfc-editor.org/rfc/rfc6797#section-7.2"""
    assert "Strict-Transport-Security" not in client.get("metadata").headers


@pytest.mark.parametrize(
    ("environ", "secure"),
    [
        ({"HTTP_X_FORWARDED_PROTO": "https"}, True),
        ({"HTTP_FORWARDED": "proto=https"}, True),
        ({"HTTP_X_FORWARDED_PROTO": "http"}, False),
        ({"HTTP_X_FORWARDED_PROTO": "gopher"}, False),
        ({"HTTP_X_FORWARDED_PROTO": "https", "REMOTE_ADDR": "192.0.2.1"}, False),
        ({"wsgi.url_scheme": "https", "REMOTE_ADDR": "192.0.2.1"}, True),
    ],
)
def test_a_proxy_that_is_trusted_can_say_that_there_is_tls(environ, secure):
    given = {"wsgi.url_scheme": "http", "REMOTE_ADDR": "127.0.0.1", **environ}

    assert is_secure(given, networks(["127.0.0.1"])) is secure


def test_hsts_is_said_behind_a_proxy_with_tls(make_client):
    client = make_client(Settings(trusted_proxy=("127.0.0.0/8",)))
    app = client._http.app
    client._http = TestClient(
        lambda environ, start_response: app({**environ, "REMOTE_ADDR": "127.0.0.1"}, start_response)
    )

    answer = client.get("metadata", X_Forwarded_Proto="https")

    assert answer.headers["Strict-Transport-Security"] == HSTS


@pytest.mark.parametrize(
    ("certificate_text", "key_text", "said"),
    [
        (None, "", "can't be read: No such file"),
        ("", "", "Expected is PEM"),
        ("nonsense", "", "Expected is PEM"),
    ],
)
def test_a_certificate_that_is_none_is_refused(tmp_path, certificate_text, key_text, said):
    if certificate_text is not None:
        (tmp_path / "cert").write_text(certificate_text)
    (tmp_path / "key").write_text(key_text)

    with pytest.raises(Invalid, match=said):
        context(str(tmp_path / "cert"), str(tmp_path / "key"))


def test_a_key_of_another_certificate_is_refused(tmp_path, pair):
    other = certificate(tmp_path)

    with pytest.raises(Invalid, match="key values mismatch"):
        context(pair.certificate, other.key)


def test_a_key_with_a_pass_phrase_is_refused_without_asking(tmp_path):
    """A server that waits at a terminal for a pass phrase is a server that doesn't start."""
    locked = certificate(tmp_path, password=b"secret")

    with pytest.raises(Invalid, match="without a pass phrase"):
        context(locked.certificate, locked.key)


def test_one_file_may_hold_both(tmp_path, pair):
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(Path(path).read_bytes() for path in (pair.key, pair.certificate)))

    assert context(str(both), None).minimum_version == ssl.TLSVersion.TLSv1_2


def serial_of(port):
    """Of the certificate that a new connection gets."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
        made.wrap_socket(plain) as connection,
    ):
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True)).serial_number


def test_sighup_exchanges_the_certificate(record, tmp_path):
    """`serve --tls-cert --tls-key` as a process: a new certificate without a pause, and a bad one changes nothing."""
    folder = tmp_path / "tls"
    first = certificate(folder)
    command = [
        sys.executable,
        "-m",
        "cli",
        "serve",
        "--allow-anonymous",
        "--port",
        "0",
        "--workers",
        "1",
        "--threads",
        "2",
    ]
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--tls-cert", first.certificate, "--tls-key", first.key],
            stdout=subprocess.PIPE,
            stderr=stream,
            env={**os.environ, "GIT_DIR": record},
        )

    def lines(message):
        return [line for line in log.read_text().splitlines() if message in line]

    def hang_up(message, process=process):
        before, end = len(lines(message)), time.monotonic() + PATIENCE
        process.send_signal(signal.SIGHUP)
        while len(lines(message)) == before:
            assert process.poll() is None
            assert time.monotonic() < end

    try:
        greeting = process.stdout.readline().decode()
        assert greeting.startswith(f"git-fhir serves {record} on https://127.0.0.1:"), log.read_text()
        port = int(greeting.rsplit(":", 1)[1].removesuffix("/fhir\n"))
        assert serial_of(port) == first.serial

        second = certificate(folder)
        hang_up("settings reloaded")
        end = time.monotonic() + PATIENCE
        while serial_of(port) != second.serial:  # a worker that retires takes what the kernel holds for it
            assert time.monotonic() < end

        (folder / "key.pem").write_text("nonsense")
        hang_up("the settings are not reloaded")
        assert serial_of(port) == second.serial
        assert not lines("Traceback")
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
        process.stdout.close()


def test_a_server_without_its_certificate_does_not_start(record, tmp_path):
    """One line that names the file."""
    missing = tmp_path / "none.pem"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "api",
            record,
            "--allow-anonymous",
            "--port",
            "0",
            "--workers",
            "1",
            "--tls-cert",
            missing,
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"git-fhir: The TLS file {missing} can't be read: No such file or directory."
    ]
