"""Behind nginx and Caddy, with the configurations of docs/operations.md: TLS ends there, and everything else gets through."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from api.app import create_app
from api.server import bind, server
from gitstore import Store
from tests.api.wires import PATIENCE, Pair, certificate, dispose

HOST = "fhir.example.org"
JSON = {"Content-Type": "application/fhir+json"}
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def documented(language: str, port: int, backend: int, pair: Pair) -> str:
    """The page's configuration, with the ports and files of this test."""
    block = re.search(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert block
    text = block[1]
    assert "/etc/ssl/fhir.pem" in text
    for there, here in (
        ("127.0.0.1:8080", f"127.0.0.1:{backend}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("fhir.example.org {", f"fhir.example.org:{port} {{\n\tbind 127.0.0.1"),
        ("/etc/ssl/fhir.pem", pair.certificate),
        ("/etc/ssl/fhir.key", pair.key),
    ):
        text = text.replace(there, here)
    return text


def nginx(folder: Path, port: int, backend: int, pair: Pair) -> list[str]:
    """The command that runs it, with all that it writes in `folder`."""
    own = "user root;\n" if os.getuid() == 0 else ""
    paths = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"{own}daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}{documented('nginx', port, backend, pair)}}}\n"
    )
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


def caddy(folder: Path, port: int, backend: int, pair: Pair) -> list[str]:
    mine = "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {\n\t\tprotocols h1\n\t}\n}\n"
    (folder / "Caddyfile").write_text(mine + "\n" + documented("caddyfile", port, backend, pair))
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


@dataclass
class Proxy:
    """A proxy with TLS, and behind it a server over `store`."""

    port: int
    pair: Pair
    store: Store

    @property
    def base(self) -> str:
        return f"https://{HOST}:{self.port}"

    def request(self, method, path, body=None, **headers):
        """Status, headers and body; `path` may be a link."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.sock = self.pair.trusting().wrap_socket(plain, server_hostname=HOST)
        sent = {"Host": f"{HOST}:{self.port}", **(JSON if body is not None else {})}
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        connection.request(method, path.removeprefix(self.base), body, sent)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.headers, content


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until somebody listens on the port."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
        except ConnectionRefusedError:
            continue
        return
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def proxy(request, empty_record, settings, tmp_path_factory):
    command = request.param
    if shutil.which(command.__name__) is None:
        pytest.skip(f"{command.__name__} is not installed: `apt-get install {command.__name__}`")
    folder = tmp_path_factory.mktemp(command.__name__)
    pair = certificate(folder, HOST)
    path = shutil.copytree(empty_record, folder / "record.git")
    trusting = replace(
        settings, trusted_proxy=("127.0.0.1",), host_name=(HOST,), max_body=6_000_000, max_bundle=8_000_000
    )
    with Store.open(path, trusting) as store:
        listener = bind("127.0.0.1", 0)
        port, backend = free_port(), listener.getsockname()[1]
        app = create_app(store, trusting)
        web = server(app, listener, threads=2, max_body=8_000_000)
        thread = threading.Thread(target=web.serve, args=(os.getppid(),))
        thread.start()
        home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command(folder, port, backend, pair), stdout=log, stderr=log, env={**os.environ, **home}
            )
        try:
            wait_for(port, process, folder / "log")
            yield Proxy(port, pair, store)
        finally:
            process.terminate()
            process.wait(PATIENCE)
            web.stop()
            thread.join(PATIENCE)
            dispose(web)


PATIENT = json.dumps({"resourceType": "Patient", "id": "example", "active": True}).encode()


@pytest.mark.parametrize("prefix", ["", "/ehr"])
def test_links_can_be_followed(proxy, prefix):
    """Location, the base that the server names, and the pages of a search with all that needs to be encoded."""
    base = f"{proxy.base}{prefix}/fhir"
    status, headers, _ = proxy.request("POST", f"{prefix}/fhir/Patient", PATIENT)
    assert status == 201
    assert headers["Location"].startswith(f"{base}/Patient/")
    assert proxy.request("GET", headers["Location"])[0] == 200
    assert json.loads(proxy.request("GET", f"{prefix}/fhir/metadata")[2])["implementation"]["url"] == base

    for name in ("a", "b", "c"):
        body = {
            "resourceType": "Patient",
            "id": name,
            "identifier": [{"system": "urn:x", "value": "ü /+&%|"}],
        }
        proxy.request("PUT", f"{prefix}/fhir/Patient/{name}", json.dumps(body).encode())
    link = f"{prefix}/fhir/Patient?identifier=urn:x%7C%C3%BC%20%2F%2B%26%25%5C%7C&_count=1"
    found = []
    while link:
        status, _, content = proxy.request("GET", link)
        assert status == 200, content
        page = json.loads(content)
        found += [entry["fullUrl"] for entry in page.get("entry", ())]
        link = next((each["url"] for each in page["link"] if each["relation"] == "next"), None)
        assert link is None or link.startswith(base)
    assert sorted(found) == [f"{base}/Patient/{name}" for name in ("a", "b", "c")]


def test_what_a_client_makes_up_is_dropped(proxy):
    """Whoever could say where the server is could send the links of others to a place of his."""
    made_up = {
        "Forwarded": "proto=http;host=evil.example",
        "X_Forwarded_Host": "evil.example",
        "X_Forwarded_Proto": "http",
        "X_Forwarded_Prefix": "/evil",
        "X_Forwarded_Port": "1",
        "X_Forwarded_For": "127.0.0.1",
    }

    status, _, content = proxy.request("GET", "/fhir/metadata", **made_up)

    assert status == 200, content
    assert json.loads(content)["implementation"]["url"] == f"{proxy.base}/fhir"


def test_headers_arrive_as_they_were_sent(proxy):
    """Cache-Control: private keeps shared caches away, ETags stay what they are, and HSTS is said once."""
    proxy.request("PUT", "/fhir/Patient/example", PATIENT)

    status, headers, _ = proxy.request(
        "GET", "/fhir/Patient/example", X_Request_Id="abc-1", Accept_Encoding="gzip"
    )

    assert status == 200
    assert headers.get_all("Cache-Control") == ["private, no-cache"]
    assert re.fullmatch(r'W/"[0-9]+"', headers["ETag"])
    assert headers["X-Request-Id"] == "abc-1"
    assert headers.get_all("Strict-Transport-Security") == ["max-age=31536000"]
    assert proxy.request("GET", "/fhir/Patient/example", If_None_Match=headers["ETag"])[0] == 304
    assert proxy.request("DELETE", "/fhir/Patient/nobody")[0] == 204
    status, head, content = proxy.request("HEAD", "/fhir/Patient/example")
    assert (status, content, head["ETag"]) == (200, b"", headers["ETag"])


def test_large_bodies_pass_both_ways(proxy):
    """Megabytes in, packed and plain, and out again."""
    text = json.dumps({"resourceType": "Patient", "id": "large", "implicitRules": "x" * 5_000_000}).encode()

    assert proxy.request("PUT", "/fhir/Patient/large", text)[0] in (200, 201)
    assert proxy.request("PUT", "/fhir/Patient/large", gzip.compress(text), Content_Encoding="gzip")[0] == 200
    status, _, content = proxy.request("GET", "/fhir/Patient/large")
    assert (status, len(json.loads(content)["implicitRules"])) == (200, 5_000_000)
    assert proxy.request("PUT", "/fhir/Patient/large", b" " * 6_000_001)[0] == 413


def test_a_long_search_gets_through(proxy):
    """FHIR's GETs can be as long as the server's limit allows."""
    status, _, content = proxy.request("GET", f"/fhir/Patient?identifier=urn:x%7C{'x' * 20_000}")

    assert status == 200, content
    assert json.loads(content)["total"] == 0


def test_other_names_than_the_configured_one_are_refused(proxy):
    """421 of the server, or whatever the proxy does with them; but no answer out of the record."""
    try:
        status, _, content = proxy.request("GET", "/fhir/Patient/example", Host="evil.example")
    except (ssl.SSLError, http.client.HTTPException):
        return
    assert status == 421 or not content
