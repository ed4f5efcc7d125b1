"""Pictures of the pages for docs/audit.md, of the sample clinic in Chromium: `python -m tools.screenshots --into docs/images`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from waitress.server import BaseWSGIServer, create_server

from api.app import create_app
from gitstore import Settings, Store

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "sample_repo" / "clinic.bundle"
PATIENT = "/fhir/Patient/amara-okafor"

PAGES = {
    "front": "/fhir",
    "resource": PATIENT,
    "history": f"{PATIENT}/_history",
    "diff": f"{PATIENT}/$diff?fromVersion=1&toVersion=4",
    "blame": f"{PATIENT}/$blame",
    "search": "/fhir/Observation?patient=amara-okafor&_sort=-date",
}
"""By the name of the picture, what it shows."""

BASE = "https://fhir.example.org/fhir"
"""What the pages take themselves to be at."""

SIZE = (1000, 760)
"""Of the window, in pixels."""

SECONDS = 60
"""For one picture."""


def chromium() -> str | None:
    """The browser's path; None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def arguments(profile: Path, *, dark: bool = False, size: tuple[int, int] = SIZE) -> list[str]:
    """What Chromium is started with; `profile` is a folder of its own."""
    return [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-first-run",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--user-data-dir={profile}",
        f"--window-size={size[0]},{size[1]}",
    ]


@contextmanager
def served(clone: Path) -> Iterator[str]:
    """The URL of a server of a record, for as long as the block takes."""
    with Store.open(clone, Settings(durability="off")) as store:
        server = create_server(create_app(store, Settings(base_url=BASE)), host="127.0.0.1", port=0)
        assert isinstance(server, BaseWSGIServer)  # as there is one address
        assert server.socket is not None
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.close()
            thread.join(timeout=SECONDS)


def take(browser: str, url: str, picture: Path, *, dark: bool = False, size: tuple[int, int] = SIZE) -> None:
    """Raises CalledProcessError or TimeoutExpired where the browser fails."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            *arguments(Path(profile), dark=dark, size=size),
            f"--screenshot={picture.absolute()}",
            url,
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)


def main(given: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 without a browser."""
    parser = argparse.ArgumentParser("python -m tools.screenshots", description="Pictures of the pages.")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR")
    parser.add_argument("--only", nargs="*", choices=PAGES, default=list(PAGES))
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args(given)
    browser = chromium()
    if browser is None:
        print("There is no Chromium here: apt-get install chromium", file=sys.stderr)
        return 1
    options.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clinic.git")
        subprocess.run(["git", "clone", "--quiet", "--bare", str(BUNDLE), str(clone)], check=True)
        with served(clone) as server:
            for name in options.only:
                take(browser, server + PAGES[name], options.into / f"{name}.png", dark=options.dark)
    return 0


if __name__ == "__main__":
    sys.exit(main())
