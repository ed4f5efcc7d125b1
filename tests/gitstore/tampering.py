"""A record changed behind its back: by a forger with git's plumbing, in the index; and what verify says of it then."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pygit2
from pygit2.enums import ObjectType

from gitstore import Author, Finding, Store, path_of
from gitstore.fhir.ids import ResourceId
from gitstore.git.commits import Sign, add_signature, split_signature
from gitstore.git.repository import Repository
from tests.conftest import START

ADA = Author("Ada Lovelace", "ada@clinic.example")
PATIENT = ResourceId("Patient", "p")
PATH = path_of(PATIENT)

Git = Callable[..., str]
Edit = Callable[[str], str]


def verified(store: Store) -> list[Finding]:
    """What is found when the index tells the same story: what is wrong in git and the journal alone."""
    store.reindex()
    return list(store.verify())


def check_index(store: Store, change: str) -> None:
    """What a statement of SQL changes in the index is found as that, and mended by reindex."""
    connection: sqlite3.Connection = store._index.writer()
    assert connection.execute(change).rowcount > 0

    found = list(store.verify())

    assert found
    assert {finding.kind for finding in found} == {"index"}
    assert verified(store) == []


def stage(git: Git, path: str, content: str | None, mode: str = "100644") -> None:
    """Put a file into git's index, None for a removal; the content of a submodule is the id of its commit."""
    if content is None:
        git("rm", "--quiet", "--cached", path)
    else:
        id = content if mode == "160000" else git("hash-object", "-w", "--stdin", input=content)
        git("update-index", "--add", "--cacheinfo", f"{mode},{id},{path}")


_KINDS = {"commit": ObjectType.COMMIT, "tree": ObjectType.TREE}


class Forger:
    """Makes a commit of the record again with something changed, and all that follow it on top of that."""

    def __init__(self, git: Git, record: str) -> None:
        self.git = git
        self.repository = Repository(record)
        self.objects = pygit2.Repository(record).odb
        self.ids = git("rev-list", "--reverse", "main").split("\n")

    def remake(
        self,
        number: int,
        edit: Edit = lambda text: text,
        *,
        tree: Callable[[str], str] | None = None,
        until: int = 0,
        drop: bool = False,
        sign: Sign | None = None,
    ) -> str:
        """`number` is the sequence. `edit` changes the text of the commit, `tree` its tree, and those up to `until`.

        Signatures stay as they were, or are made with `sign`. Returns the id of the first that is made again.
        """
        parent, made = (self.ids[number - 2] if number > 1 else ""), ""
        for at, id in enumerate(self.ids[number - 1 :], number):
            if at == number and drop:
                continue
            data = self.repository.object(id)
            payload, signature = split_signature(data)
            text = payload.decode().replace(f"parent {self.ids[at - 2]}", f"parent {parent}")
            if tree is not None and (at == number or at <= until):
                old = text[5:45]
                text = text.replace(old, tree(old), 1)
            text = edit(text) if at == number else text
            forged = add_signature(text.encode(), signature or b"\n") if sign is None else sign(text.encode())
            parent = self.write(forged)
            made = made or parent
        self.git("update-ref", "refs/heads/main", parent)
        return made

    def write(self, data: bytes, kind: str = "commit") -> str:
        return str(self.objects.write(_KINDS[kind], data))

    def add(self, text: str, tree: Callable[[str], str] = lambda id: id) -> str:
        """A commit on top of main, without a signature."""
        root = tree(self.git("rev-parse", "main^{tree}"))
        who = f"{ADA.name} <{ADA.email}> {START // 1_000_000 + 99} +0000"
        header = f"tree {root}\nparent {self.ids[-1]}\nauthor {who}\ncommitter {who}\n\n"
        made = self.write(f"{header}{text}".encode())
        self.git("update-ref", "refs/heads/main", made)
        return made

    def put(self, path: str, content: str | None, mode: str = "100644") -> Callable[[str], str]:
        """The tree with this file, or without it."""

        def change(tree: str) -> str:
            self.git("read-tree", tree)
            stage(self.git, path, content, mode)
            return self.git("write-tree")

        return change

    def file(self, number: int, path: str = PATH) -> str:
        """A file as a commit left it."""
        return self.git("cat-file", "blob", f"{self.ids[number - 1]}:{path}") + "\n"

    def entries(self, path: str, edit: Callable[[bytes], bytes], tree: str) -> str:
        """The tree with the bytes of the folder at `path` changed."""
        data = self.repository.object(tree)
        if not path:
            return self.write(edit(data), "tree")
        name, _, rest = path.partition("/")
        head = b"40000 " + name.encode() + b"\x00"
        at = data.index(head) + len(head)
        inner = self.entries(rest, edit, data[at : at + 20].hex())
        return self.write(data[:at] + bytes.fromhex(inner) + data[at + 20 :], "tree")
