"""Many repositories in one server: each below its name as if it were alone, and nothing of one shows in another."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from falcon.testing import Result, TestClient
from lxml import html
from prometheus_client.parser import text_string_to_metric_families

from api.app import ROUTES
from api.metrics import ManyMetrics, OfOne
from api.opening import Application, opened
from api.repositories import Repositories
from api.root import Root
from gitstore import Settings, Tokens, accesses, now
from tests.conftest import copy_record

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
PATIENT = {"resourceType": "Patient", "id": "example"}
HERE = "http://localhost:8080"


@pytest.fixture
def folder(tmp_path: Path, empty_record: Path) -> Path:
    (tmp_path / "root").mkdir()
    copy_record(empty_record, tmp_path / "root" / "north.git")
    copy_record(empty_record, tmp_path / "root" / "south")
    return tmp_path / "root"


@pytest.fixture
def by_name(settings: Settings) -> dict[str, Settings]:
    """What a test wants to be different in one of them."""
    return {}


@pytest.fixture
def metrics() -> ManyMetrics:
    return ManyMetrics()


@pytest.fixture
def make(folder, settings, by_name, metrics) -> Iterator[Callable[..., TestClient]]:
    made: list[Repositories] = []

    def make(*, anonymous: bool = True, most: int = 4) -> TestClient:
        def open_one(path: str) -> AbstractContextManager[Application]:
            mine = by_name.get(os.path.basename(path).removesuffix(".git"), settings)
            return opened(path, mine, OfOne(metrics), allow_anonymous=anonymous)

        made.append(Repositories(str(folder), open_one, metrics, most=most))
        root = Root(made[-1], metrics)

        def from_here(environ: dict[str, Any], start_response: Any) -> Any:
            return root({"REMOTE_ADDR": "127.0.0.1"} | environ, start_response)

        return TestClient(from_here, headers={"Host": "localhost:8080"})

    yield make
    for each in made:
        each.close()


@pytest.fixture
def client(make) -> TestClient:
    return make()


def put(client: TestClient, name: str, resource: dict[str, Any], **headers: str) -> Result:
    sent = {"Content-Type": "application/fhir+json", **headers}
    path = f"/{name}/fhir/{resource['resourceType']}/{resource['id']}"
    return client.simulate_put(path, body=json.dumps(resource), headers=sent)


def new_token(folder: Path, entry: str, scope: str = "user/*.cruds") -> str:
    git_dir = str(folder / entry)
    return Tokens(git_dir).create(
        name="Ada", email="ada@clinic.example", scope=scope, now=now(), expires=None
    )[0]


# Each is as if it were alone


def test_each_has_a_record_of_its_own(client):
    assert put(client, "north", {**PATIENT, "active": True}).status_code == 201

    assert client.simulate_get("/north/fhir/Patient/example").json["active"] is True
    assert client.simulate_get("/south/fhir/Patient/example").status_code == 404
    assert put(client, "south", PATIENT).headers["ETag"] == 'W/"1"'


def test_all_that_is_said_of_a_place_begins_with_its_name(client):
    """Location, Content-Location, fullUrl, every link of a page and of a history, and the CapabilityStatement."""
    base = f"{HERE}/north/fhir"
    written = put(client, "north", PATIENT)
    found = client.simulate_get("/north/fhir/Patient", query_string="_count=1").json
    history = client.simulate_get("/north/fhir/_history").json
    everything = client.simulate_get("/north/fhir/Patient/example/$everything").json

    assert written.headers["Location"] == f"{base}/Patient/example/_history/1"
    assert {entry["fullUrl"] for each in (found, history, everything) for entry in each["entry"]} == {
        f"{base}/Patient/example"
    }
    for each in (found, history, everything):
        assert each["link"]
        for link in each["link"]:
            assert link["url"].startswith(base)
            assert client.simulate_get(link["url"].removeprefix(HERE)).status_code == 200
    assert client.simulate_get("/north/fhir/metadata").json["implementation"]["url"] == base


def test_a_page_leads_to_places_of_its_own_repository_only(client):
    put(client, "north", PATIENT)
    for path in ("/north/fhir", "/north/fhir/Patient/example", "/north/fhir/_history", "/north/fhir/Patient"):
        page = html.document_fromstring(client.simulate_get(path, headers={"Accept": CHROME}).text)
        places = [*page.xpath("//a/@href"), *page.xpath("//form/@action")]
        local = [each for each in places if each.startswith(("/", HERE))]
        assert local
        assert all(each.removeprefix(HERE).startswith("/north/") for each in local), (path, local)


def test_a_past_state_is_below_the_name_too(client):
    commit = put(client, "north", PATIENT).headers["Git-Commit"]
    put(client, "north", {**PATIENT, "active": True})

    past = client.simulate_get(f"/north/at/{commit}/fhir/Patient").json

    assert "active" not in past["entry"][0]["resource"]
    assert past["link"][0]["url"] == f"{HERE}/north/at/{commit}/fhir/Patient"
    asked = client.simulate_get("/north/at", query_string=f"point={commit}")
    assert asked.headers["Location"] == f"/north/at/{commit}/fhir"


def test_the_prefix_of_a_proxy_comes_before_the_name(client, by_name, settings):
    """X-Forwarded-Prefix, from a proxy that this repository trusts."""
    by_name["north"] = Settings(durability="off", validation="off", trusted_proxy=("127.0.0.1",))
    forwarded = {"X-Forwarded-Prefix": "/registry", "X-Forwarded-Proto": "https"}

    assert (
        put(client, "north", PATIENT, **forwarded)
        .headers["Location"]
        .startswith("https://localhost:8080/registry/north/fhir/Patient/")
    )
    assert put(client, "south", PATIENT, **forwarded).headers["Location"].startswith(f"{HERE}/south/fhir/")


@pytest.mark.parametrize(("path", "location"), [("/north", "/north/fhir"), ("/north/", "/north/fhir")])
def test_a_browser_at_the_name_alone_is_led_to_the_record(client, path, location):
    response = client.simulate_get(path, headers={"Accept": CHROME})

    assert (response.status_code, response.headers["Location"]) == (303, location)


def test_an_error_names_the_place_as_it_was_asked_for(client):
    nowhere = client.simulate_get("/north/nowhere").json["issue"][0]["diagnostics"]
    refused = client.simulate_delete("/north/fhir/metadata").json["issue"][0]["diagnostics"]

    assert nowhere == "There is nothing at `/north/nowhere`. The FHIR base is `/north/fhir`."
    assert "`/north/fhir/metadata`" in refused


def test_the_log_says_in_which_one(client, caplog):
    caplog.set_level("INFO", logger="git-fhir.access")
    client.simulate_get("/north/fhir/Patient/1")
    client.simulate_get("/nobody/fhir/Patient/1")

    assert [record.fields["path"] for record in caplog.records] == [
        "/north/fhir/Patient/1",
        "/nobody/fhir/Patient/1",
    ]


def test_each_has_its_access_journal(client, folder):
    put(client, "north", PATIENT)
    client.simulate_get("/south/fhir/Patient/other")

    noted = {
        name: [each.entry.id for each in accesses(str(folder / name))] for name in ("north.git", "south")
    }

    assert noted == {"north.git": ["example"], "south": ["other"]}


# Who may come in


def test_a_token_opens_its_own_repository_alone(make, folder):
    client = make(anonymous=False)
    bearer = {"Authorization": f"Bearer {new_token(folder, 'north.git')}"}

    assert client.simulate_get("/north/fhir/Patient", headers=bearer).status_code == 200
    assert client.simulate_get("/south/fhir/Patient", headers=bearer).status_code == 401
    assert client.simulate_get("/south/fhir/Patient").status_code == 401


def log_in(client: TestClient, name: str, secret: str, **headers: str) -> Result:
    return client.simulate_post(
        f"/{name}/login", body=urlencode({"token": secret}), headers={**FORM, **headers}
    )


def test_a_session_is_for_one_repository(make, folder):
    """Its cookie is sent below the name only (RFC 6265, 5.1.4); brought elsewhere all the same, it opens nothing."""
    client = make(anonymous=False)
    entered = log_in(client, "north", new_token(folder, "north.git"))
    cookie = entered.headers["Set-Cookie"]

    assert entered.headers["Location"] == "/north/login"
    assert re.fullmatch(r"git-fhir=[\w.-]+; Path=/north; Max-Age=43200; HttpOnly; SameSite=Lax", cookie)
    sent = {"Cookie": cookie.partition(";")[0]}
    assert client.simulate_get("/north/fhir/Patient", headers=sent).status_code == 200
    assert client.simulate_get("/south/fhir/Patient", headers=sent).status_code == 401

    left = client.simulate_post("/north/logout", headers={**FORM, **sent})
    assert left.headers["Location"] == "/north/login"
    assert "; Path=/north; Max-Age=0;" in left.headers["Set-Cookie"]


def test_by_https_no_plain_http_can_set_the_cookie(make, folder, by_name):
    """__Host- is for the path / alone, so __Secure- it is.
    https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis#section-4.1.3"""
    by_name["north"] = Settings(durability="off", trusted_proxy=("127.0.0.1",))
    client = make(anonymous=False)
    forwarded = {"X-Forwarded-Prefix": "/registry", "X-Forwarded-Proto": "https"}

    cookie = log_in(client, "north", new_token(folder, "north.git"), **forwarded).headers["Set-Cookie"]

    assert cookie.startswith("__Secure-git-fhir=")
    assert "; Path=/registry/north;" in cookie
    assert cookie.endswith("; Secure")


def test_a_browser_is_sent_to_the_login_of_that_repository(make):
    response = make(anonymous=False).simulate_get("/north/fhir/Patient", headers={"Accept": CHROME})

    assert response.status_code == 303
    assert response.headers["Location"] == "/north/login?next=/north/fhir/Patient"


# Names that are none


NO_NAMES = [
    "/",
    "/nobody",
    "/nobody/fhir/Patient/1",
    "/nobody/fhir.git/info/refs",
    "/plain/fhir",
    "/foreign/fhir",
    "/north.git/fhir",
    "/../root/north/fhir",
    "//north/fhir",
    "/%2e%2e/fhir",
    "/..%2fsecret/fhir",
    "/fhir",
    "/login",
    "/metrics/fhir",
]


@pytest.fixture
def others(folder: Path) -> None:
    """A folder that is no repository, and a git repository that is none of git-fhir's."""
    (folder / "plain").mkdir()
    subprocess.run(["git", "init", "-q", "--bare", folder / "foreign.git"], check=True)


@pytest.mark.usefixtures("others")
def test_all_that_is_no_repository_is_answered_alike(client):
    """404, and nothing tells an unknown name from one of something else; nor is there a list of names anywhere."""
    answers = {path: client.simulate_get(path) for path in NO_NAMES}

    assert {path: response.status_code for path, response in answers.items()} == dict.fromkeys(NO_NAMES, 404)
    assert len({response.text for response in answers.values()}) == 1
    outcome = answers["/"].json
    assert (outcome["resourceType"], outcome["issue"][0]["code"]) == ("OperationOutcome", "not-found")
    assert len({tuple(sorted(response.headers)) for response in answers.values()}) == 1
    assert answers["/"].headers["Cache-Control"] == "private, no-cache"


def test_it_is_answered_in_the_form_that_is_asked_for(client):
    response = client.simulate_get("/nobody/fhir/Patient", headers={"Accept": "application/fhir+xml"})

    assert response.headers["Content-Type"] == "application/fhir+xml"
    assert "<OperationOutcome" in response.text
    assert client.simulate_get("/nobody", headers={"Accept": "image/png"}).status_code == 406


# Those that can't be opened


def damage_settings(path: Path) -> None:
    subprocess.run(["git", "-C", path, "config", "fhir.maxBody", "much"], check=True)


def damage_scope(path: Path) -> None:
    subprocess.run(["git", "-C", path, "config", "fhir.trustedProxy", "nowhere"], check=True)


def damage_config(path: Path) -> None:
    (path / "config").write_text("[core\n")


def damage_branch(path: Path) -> None:
    (path / "refs" / "heads" / "main").write_text("0" * 39 + "1\n")


def damage_packs(path: Path) -> None:
    for pack in (path / "objects" / "pack").glob("*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(b"PACK")


def damage_format(path: Path) -> None:
    shutil.rmtree(path / "objects")
    (path / "objects").mkdir()


@pytest.mark.parametrize(
    "damage",
    [damage_settings, damage_scope, damage_config, damage_branch, damage_packs, damage_format],
)
def test_one_that_can_not_be_opened_is_unavailable_alone(folder, metrics, caplog, damage):
    """503 for this name; the reason stands in the log, and the others don't notice."""
    from api.serving import many, parse

    damage(folder / "north.git")
    options = parse(["--root", str(folder), "--allow-anonymous"])
    with many(options, metrics) as served:
        client = TestClient(served.application, headers={"Host": "localhost:8080"})
        response = client.simulate_get("/north/fhir/Patient/1")
        assert client.simulate_get("/south/fhir/Patient").status_code == 200

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.json["issue"][0]["code"] == "transient"
    assert "north" not in response.text
    [line] = [record for record in caplog.records if "repository /" in record.getMessage()]
    assert "north.git" in line.getMessage()


# The server itself


def test_the_server_answers_for_itself(client, folder):
    """Under any name, as monitors call by address. Without the folder there is nothing to serve."""
    address = {"Host": "10.0.0.1"}
    assert client.simulate_get("/health", headers=address).json == {"status": "pass"}
    ready = client.simulate_get("/ready/", headers=address)
    assert (ready.status_code, ready.json) == (200, {"status": "ok", "checks": {"root": "ok"}})

    folder.rename(folder.parent / "gone")

    assert client.simulate_get("/ready").status_code == 503
    assert client.simulate_get("/health").status_code == 200
    assert client.simulate_get("/north/fhir").status_code == 404
    refused = client.simulate_post("/health")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


def samples(response: Result) -> dict[tuple[str, str], float]:
    assert response.status_code == 200, response.text
    return {
        (sample.name.removeprefix("git_fhir_"), sample.labels.get("interaction", "")): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_the_metrics_of_the_server_are_of_all_and_name_none(client):
    put(client, "north", PATIENT)
    put(client, "south", PATIENT)
    client.simulate_get("/nobody/fhir")

    response = client.simulate_get("/metrics")
    found = samples(response)

    assert found["requests_total", "update"] == 2
    assert found["commits_total", ""] == 2
    assert found["repositories_open", ""] == 2
    assert found["repository_open_seconds_count", ""] == 2
    assert not {"north", "south", "nobody"} & set(re.findall(r"\w+", response.text))


def test_the_metrics_of_a_repository_are_of_itself_alone(client):
    """How much the others do is none of its business."""
    put(client, "north", PATIENT)

    found = samples(client.simulate_get("/south/metrics"))

    assert found["record_versions", ""] == 0
    assert found["check", ""] == 1
    assert not any(name.startswith(("requests", "commits", "repositor")) for name, _ in found)


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("10.0.0.9", {}),
        ("127.0.0.1", {"Host": "fhir.example.org"}),
        ("127.0.0.1", {"X-Forwarded-For": "10.0.0.9"}),
        ("127.0.0.1", {"Forwarded": "for=10.0.0.9"}),
        ("127.0.0.1", {"Via": "1.1 proxy"}),
    ],
)
def test_the_metrics_of_the_server_are_for_its_own_machine(client, peer, headers):
    """Not for others, nor for who comes through a proxy on it, nor for a page that has its name point here."""
    response = client.simulate_get("/metrics", remote_addr=peer, headers=headers)

    assert (response.status_code, response.json["issue"][0]["code"]) == (403, "forbidden")


# Limits


def test_each_has_its_own_limit_of_bodies(client, by_name):
    """The server reads as much as the most generous one takes; the others refuse it all the same."""
    by_name["south"] = Settings(durability="off", validation="off", max_body=500_000)
    large = {**PATIENT, "implicitRules": "x" * 60_000}

    refused, taken = put(client, "north", large), put(client, "south", large)

    assert (refused.status_code, taken.status_code) == (413, 201)
    assert "50000" in refused.json["issue"][0]["diagnostics"].replace(",", "")


def test_an_answer_that_is_being_sent_keeps_its_repository_open(make, metrics):
    """A clone is made while it is sent: the repository is closed when the server closes the answer, not before."""
    client = make(most=1)
    put(client, "north", PATIENT)
    asking = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/north/fhir.git/info/refs",
        "QUERY_STRING": "service=git-upload-pack",
    }
    environ, root = _environ(**asking), client.app

    sent = root(environ, lambda *_: None)
    first = next(iter(sent))
    waiting: list[int] = []
    other = threading.Thread(
        target=lambda: waiting.append(client.simulate_get("/south/fhir/Patient").status_code)
    )
    other.start()
    rest = b"".join(sent)
    assert waiting == []
    sent.close()
    other.join(20)

    assert b"service=git-upload-pack" in first + rest
    assert waiting == [200]


def _environ(**more: str) -> dict[str, Any]:
    from falcon.testing import create_environ

    return create_environ(headers={"Host": "localhost:8080"}) | more


def _descriptors() -> list[str]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(each))
        except FileNotFoundError:  # that of the folder itself
            continue
    return found


def test_nothing_is_left_of_what_was_closed(make, folder):
    """60 times a repository is opened, searched, at times written to, and closed: threads and descriptors stay as many."""
    client = make(most=1)

    def turn(number: int) -> None:
        name = ("north", "south")[number % 2]
        if number % 10 < 2:
            assert put(client, name, {**PATIENT, "active": number % 20 < 10}).status_code in (200, 201)
        assert client.simulate_get(f"/{name}/fhir/Patient", query_string="active=true").status_code == 200

    for number in range(12):
        turn(number)
    gc.collect()
    threads, files = threading.active_count(), len(_descriptors())
    for number in range(60):
        turn(number)

    assert threading.active_count() <= threads
    assert len(_descriptors()) <= files + 2
    assert not [name for name in _descriptors() if "north.git" in name], "but for the one that is open"


def test_no_name_of_the_server_is_that_of_a_route():
    """What stands at / in a single repository is below the name here; these are the server's own."""
    assert {"/health", "/ready", "/metrics"} <= {path for path, _ in ROUTES}
