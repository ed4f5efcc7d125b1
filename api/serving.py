"""A server of one repository, or of a folder of them, over HTTP: `python -m api`, which `git-fhir serve` becomes."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial

from msgspec import Struct

from api import log, tls
from api.allocating import give_back
from api.app import BASE_PATH
from api.auth import host_name, is_loopback
from api.balance import Balance
from api.credentials import Credentials
from api.limits import THREADS, Places
from api.metrics import OTHER, ManyMetrics, Metrics, OfOne, bury
from api.opening import Application, opened
from api.repositories import MOST, Repositories, largest_body, listed
from api.root import Root, swept
from api.server import WAITING, Master, Ready, addresses, bind, server
from api.shared_folder import shared_folder
from gitstore import (
    CACHE_BYTES,
    RepositoryRefused,
    Settings,
    StorageFailed,
    StoreError,
    Tokens,
    cores,
    now,
    read_settings,
)

WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - to recognise them, not to bind them

FILES = 4096
"""Descriptors that a worker may need: three for a connection (its socket, a large body, a large answer), and the packs."""

LEAST_CACHE = 1024**2
"""Bytes of git's objects that each of many repositories keeps in memory, however many may be open."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 after a stop by signal, 1 where the repository, address or setting is refused."""
    options = parse(arguments)
    try:
        check(options)
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

    host, port = addresses(listener)
    place = f"{'https' if options.tls_cert else 'http'}://{host}:{port}"
    greeting = (
        f"git-fhir serves {options.repository} on {place}{BASE_PATH}"
        if options.root is None
        else f"git-fhir serves the repositories of {options.root} on {place}/NAME{BASE_PATH}"
    )
    with shared_folder() as folder:
        balance = Balance()
        at_work = partial(work, options, folder, balance)

        def buried(number: int) -> None:
            balance.leave(number)
            bury(folder, number)

        return Master(listener, at_work, options.workers, sys.stdout, sys.stderr, buried).run(greeting)


def work(
    options: argparse.Namespace,
    folder: str,
    balance: Balance,
    listener: socket.socket,
    number: int,
    ready: Ready,
) -> None:
    """The life of a worker, from the fork to its last answer; `folder` is for the metrics. Raises StoreError."""
    parent = os.getppid()
    give_back()
    if options.pin:
        cores.keep_to_one(options.first_core + number)
    secure = tls.context(options.tls_cert, options.tls_key) if options.tls_cert else None
    metrics = Metrics.shared(folder, number) if options.root is None else ManyMetrics.shared(folder, number)
    with many(options, metrics) if isinstance(metrics, ManyMetrics) else one(options, metrics) as served:
        web = server(
            served.application,
            listener,
            threads=options.threads,
            waiting=options.queue,
            max_body=served.max_body,
            receive_timeout=served.receive_timeout,
            count_refusal=partial(metrics.refused, OTHER, OTHER),
            tls=secure,
            balance=balance,
            number=number,
        )
        ready(web)
        web.serve(parent)
    if os.getppid() != parent:  # the master was killed, and can't do it
        shutil.rmtree(folder, ignore_errors=True)


class Served(Struct, frozen=True):
    """What a worker serves, and what its connections have to know of it: bytes of a body, seconds for a header."""

    application: Application
    max_body: int
    receive_timeout: float


@contextmanager
def one(options: argparse.Namespace, metrics: Metrics) -> Iterator[Served]:
    """The one repository that is served. Raises StoreError."""
    allow_files(FILES)
    settings = with_host(read_settings(options.repository), options.host)
    places = Places.of(options.threads)
    with opened(options.repository, settings, metrics, places=places, **how(options)) as application:
        yield Served(application, max(settings.max_bundle, settings.max_body), settings.receive_timeout)


@contextmanager
def many(options: argparse.Namespace, metrics: ManyMetrics) -> Iterator[Served]:
    """The repositories of a folder, each with what is its own. Raises StorageFailed where it can't be read."""
    # Each thread has a connection of its own to the index of each repository that it has read.
    allow_files(FILES + options.open * (3 * options.threads + 16))
    cache_bytes = max(CACHE_BYTES // options.open, LEAST_CACHE)
    places = Places.of(options.threads)

    def open_one(git_dir: str) -> AbstractContextManager[Application]:
        # A lease needs a thread and a connection of its own for each repository: docs/failover.md
        settings = replace(with_host(read_settings(git_dir), options.host), etcd=())
        return opened(
            git_dir, settings, OfOne(metrics), cache_bytes=cache_bytes, places=places, **how(options)
        )

    try:
        max_body = largest_body(options.root)
    except OSError as error:
        raise StorageFailed(f"{options.root} can't be read: {error.strerror}.") from error
    with swept(Repositories(options.root, open_one, metrics, most=options.open)) as repositories:
        yield Served(Root(repositories, metrics), max_body, Settings().receive_timeout)


def how(options: argparse.Namespace) -> dict[str, bool]:
    """What the command line says about every repository."""
    return {"allow_anonymous": options.allow_anonymous, "as_replica": options.replica}


def check(options: argparse.Namespace) -> None:
    """Tell what is wrong with the settings at once, and not by every worker. Raises StoreError."""
    if options.root is None:
        settings = read_settings(options.repository)
        Credentials(options.repository, settings, now, allow_anonymous=options.allow_anonymous)
        return
    try:
        found = list(listed(options.root))
    except OSError as error:
        raise RepositoryRefused(f"{options.root} can't be read: {error.strerror}.") from error
    for each in found:
        if warning := Tokens(each.path).exposure():
            print(f"git-fhir: warning: {warning}", file=sys.stderr)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m api", description="Serve git-fhir repositories over HTTP."
    )
    served = parser.add_mutually_exclusive_group(required=True)
    served.add_argument("repository", metavar="GITDIR", nargs="?", help="the git directory")
    served.add_argument(
        "--root", metavar="DIR", type=os.path.abspath, help="every repository in DIR, each at /NAME/fhir"
    )
    parser.add_argument(
        "--open",
        type=positive,
        default=MOST,
        help="with --root: repositories that each worker has open at once (default: %(default)s)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--workers",
        type=positive,
        default=os.cpu_count() or 1,
        help="processes (default: one per core, %(default)s)",
    )
    parser.add_argument(
        "--no-pin",
        dest="pin",
        action="store_false",
        help="let workers move between cores; each keeps to one otherwise",
    )
    parser.add_argument(
        "--threads", type=positive, default=THREADS, help="of each worker (default: %(default)s)"
    )
    parser.add_argument(
        "--queue",
        type=positive,
        default=WAITING,
        help="requests of each worker that may wait for a thread (default: %(default)s)",
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="speak TLS, with this certificate chain (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key, where the chain's file has none")
    parser.add_argument(
        "--replica", action="store_true", help="follow fhir.hub, and write nothing, until promoted"
    )
    parser.add_argument(
        "--allow-anonymous",
        action="store_true",
        help="answer without credentials, too: everything, or what fhir.anonymousScope says",
    )
    options = parser.parse_args(arguments)
    # Where there are more cores than workers, two servers need not meet on the same ones.
    options.first_core = os.getpid()
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
