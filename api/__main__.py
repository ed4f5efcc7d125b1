"""`python -m api GITDIR`: serve a repository over HTTP. `git-fhir serve` becomes this."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from api import log, tls
from api.app import BASE_PATH, create_app
from api.auth import host_name, is_loopback
from api.credentials import Credentials
from api.metrics import OTHER, Metrics, bury
from api.server import WAITING, Master, Ready, addresses, bind, server
from gitstore import Journal, Settings, Store, StoreError, now, read_settings

WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - to recognise them, not to bind them

FILES = 4096
"""Descriptors that a worker may need: three for a connection (its socket, a large body, a large answer), and the packs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 after a stop by signal, 1 where the repository, address or setting is refused."""
    options = parse(arguments)
    try:
        # What is wrong with the settings is told at once, and not by every worker.
        Credentials(
            options.repository,
            read_settings(options.repository),
            now,
            allow_anonymous=options.allow_anonymous,
        )
    except StoreError as error:
        return refuse(str(error))
    try:
        listener = bind(options.host, options.port)
    except OSError as error:
        return refuse(f"{options.host} port {options.port}: {error.strerror}")
    log.configure(sys.stderr)
    if not (options.tls_cert or is_loopback(options.host)):
        log.SERVER.warning(
            "without --tls-cert or a proxy that speaks TLS, others on the network can read along"
        )

    def work(folder: str, listener: socket.socket, number: int, ready: Ready) -> None:
        parent = os.getppid()
        secure = tls.context(options.tls_cert, options.tls_key) if options.tls_cert else None
        settings = with_host(read_settings(options.repository), options.host)
        metrics = Metrics.shared(folder, number)
        credentials = Credentials(options.repository, settings, now, allow_anonymous=options.allow_anonymous)
        with (
            Store.open(options.repository, settings, observer=metrics) as store,
            journaled(settings, store) as journal,
        ):
            app = create_app(store, settings, credentials=credentials, metrics=metrics, journal=journal)
            web = server(
                app,
                listener,
                threads=options.threads,
                waiting=options.queue,
                max_body=max(settings.max_bundle, settings.max_body),
                receive_timeout=settings.receive_timeout,
                count_refusal=partial(metrics.refused, OTHER, OTHER),
                tls=secure,
            )
            ready(web)
            web.serve(parent)
        if os.getppid() != parent:  # the master was killed, and can't do it
            shutil.rmtree(folder, ignore_errors=True)

    host, port = addresses(listener)
    scheme = "https" if options.tls_cert else "http"
    greeting = f"git-fhir serves {options.repository} on {scheme}://{host}:{port}{BASE_PATH}"
    with tempfile.TemporaryDirectory(prefix="git-fhir-metrics-") as folder:
        at_work, buried = partial(work, folder), partial(bury, folder)
        return Master(listener, at_work, options.workers, sys.stdout, sys.stderr, buried).run(greeting)


@contextmanager
def journaled(settings: Settings, store: Store) -> Iterator[Journal | None]:
    """The access journal for the length of a worker's life; None where fhir.accessJournal is off."""
    if settings.access_journal == "off":
        yield None
        return
    journal = Journal.open(
        store.git_dir, durable=settings.durability == "full", timeout=settings.lock_timeout
    )
    try:
        yield journal
    finally:
        journal.close()


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
        "--queue",
        type=positive,
        default=WAITING,
        help="requests of each worker that may wait for a thread (default: %(default)s)",
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="speak TLS, with this certificate chain (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key, where the chain's file has none")
    parser.add_argument(
        "--allow-anonymous",
        action="store_true",
        help="answer without credentials, too: everything, or what fhir.anonymousScope says",
    )
    options = parser.parse_args(arguments)
    if options.tls_key and not options.tls_cert:
        parser.error("--tls-key needs --tls-cert")
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def allow_files(wanted: int) -> None:
    """Raise this process's limit of open files as far as it may itself. 1,024 are what it usually begins with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


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
