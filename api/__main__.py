"""`python -m api GITDIR`: serve a repository over HTTP. `git-fhir serve` becomes this."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace

from api import log
from api.app import BASE_PATH, create_app
from api.auth import host_name, is_loopback
from api.server import Master, Ready, addresses, bind, server
from gitstore import Settings, Store, read_settings

WILDCARDS = ("0.0.0.0", "::", "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 after a stop by signal, 1 where the repository, address or setting is refused."""
    options = parse(arguments)
    if not options.allow_anonymous and not is_loopback(options.host):
        return refuse(
            f"{options.host} can be reached by others, and anyone who reaches it may read and write. "
            "Serve on 127.0.0.1, or say --allow-anonymous."
        )
    try:
        listener = bind(options.host, options.port)
    except OSError as error:
        return refuse(f"{options.host} port {options.port}: {error.strerror}")
    log.configure(sys.stderr)

    def work(listener: socket.socket, ready: Ready) -> None:
        parent = os.getppid()
        settings = with_host(read_settings(options.repository), options.host)
        with Store.open(options.repository, settings) as store:
            app = create_app(store, settings)
            web = server(
                app, listener, threads=options.threads, max_body=max(settings.max_bundle, settings.max_body)
            )
            ready(web)
            web.serve(parent)

    host, port = addresses(listener)
    greeting = f"git-fhir serves {options.repository} on http://{host}:{port}{BASE_PATH}"
    return Master(listener, work, options.workers, sys.stdout, sys.stderr).run(greeting)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m api", description="Serve a git-fhir repository over HTTP."
    )
    parser.add_argument("repository", metavar="GITDIR", help="the git directory")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--workers",
        type=positive,
        default=os.cpu_count() or 1,
        help="processes (default: one per core, %(default)s)",
    )
    parser.add_argument("--threads", type=positive, default=32, help="of each worker (default: %(default)s)")
    parser.add_argument(
        "--allow-anonymous", action="store_true", help="serve on an address that others can reach"
    )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def with_host(settings: Settings, host: str) -> Settings:
    """The address that the server was told to listen on is a name it answers for."""
    name = host_name(f"[{host}]" if ":" in host else host)
    if host in WILDCARDS or name is None:
        return settings
    return replace(settings, host_name=(*settings.host_name, name))


def refuse(text: str) -> int:
    print(f"git-fhir: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
