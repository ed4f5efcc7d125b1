"""Adopting foreign commits: what the tree of a foreign tip says of each resource, and whether the record can take it.

docs/architecture.md, "Foreign commits"
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from gitstore.aims import Rules
from gitstore.errors import ForeignCommit, Invalid, Problem, StoreError
from gitstore.fhir import Resource, json
from gitstore.fhir.ids import ResourceId, is_id
from gitstore.fhir.stored import template
from gitstore.git import layout
from gitstore.git.history import between
from gitstore.git.message import safe_author, safe_words
from gitstore.git.repository import Repository
from gitstore.git.trees import Difference, differences
from gitstore.interactions import Delete, Unit, Update, Validate
from gitstore.preparation import MAX_STORED, Prepared, prepare
from gitstore.settings import Settings
from gitstore.version import Author, Commit
from gitstore.writes import Write

PLAIN = "100644"
MAX_SUBJECTS = 50
"""Of foreign commits, in the words of an adopt commit."""

_KINDS = {
    "100755": "an executable",
    "120000": "a symbolic link",
    "160000": "a submodule",
    "40000": "a folder",
}


class Adoption(Struct, frozen=True):
    """What it comes to to take the commits from `before`, the last good one, up to the foreign tip into the record."""

    before: Commit
    tip: str
    problems: tuple[Problem, ...]
    """Each reason against it, by path; nothing may be adopted unless there is none."""
    prepared: Prepared
    """The unit of work that adopts it: what has no problem."""

    def refusal(self) -> ForeignCommit:
        """The error of a write that this foreign tip is in the way of.

        It goes to whoever wanted to write, and into the log: so it names a path, and doesn't say why. That quotes
        what is in the file.
        """
        more = len(self.problems) - 1
        others = f" ({more} more problem{'s' if more > 1 else ''})" if more else ""
        return ForeignCommit(
            f"Commit {self.tip} on {layout.BRANCH} was not made by git-fhir and can't be adopted:"
            f" {self.problems[0].path}{others}. `git fhir adopt --check` tells all; push a correction, or move"
            f" {layout.BRANCH} back to {self.before.id}.",
            self.tip,
            self.problems,
        )


def examine(
    repository: Repository,
    before: Commit,
    tip: str,
    settings: Settings,
    validate: Validate | None = None,
) -> Adoption:
    """Compare the trees of the last good commit and a foreign tip, and check each change.

    Raises ForeignCommit where the tip does not build on that commit.
    """
    if not repository.contains(before.id, tip):
        raise ForeignCommit(
            f"{tip} does not build on {before.id}, the last commit of the record: fetch and merge that first. A"
            f" rewound or forced {layout.BRANCH} is never adopted.",
            tip,
        )
    author = safe_author(repository.commit(tip).author)
    writes: list[Write] = []
    problems: list[Problem] = []
    size = 0
    for count, difference in enumerate(_differences(repository, before, tip)):
        if count >= settings.max_entries:
            problems.append(
                Problem("*", f"more than {settings.max_entries} files are changed (fhir.maxEntries)")
            )
            break
        try:
            one = _change(repository, difference, author, settings, validate)
        except StoreError as error:
            problems.append(Problem(difference.path, _reason(error)))
            continue
        size += one.size
        if size <= settings.max_bundle:
            writes += one.writes
    if size > settings.max_bundle:
        problems.append(
            Problem("*", f"the changed files come to more than {settings.max_bundle} bytes (fhir.maxBundle)")
        )
    writes.sort(key=lambda write: write.resource_id)
    prepared = Prepared(
        len(writes),
        tuple(replace(write, entry=entry) for entry, write in enumerate(writes)),
        (),
        "adopt",
        author,
        None,
        _words(repository, before, tip),
        size,
        tip,
    )
    return Adoption(before, tip, tuple(sorted(problems, key=str)), prepared)


def _differences(repository: Repository, before: Commit, tip: str) -> Iterator[Difference]:
    old, new = (bytes.fromhex(repository.commit(id).tree) for id in (before.id, tip))
    return differences(lambda id: repository.object(id.hex()), old, new)


def _change(
    repository: Repository,
    difference: Difference,
    author: Author,
    settings: Settings,
    validate: Validate | None,
) -> Prepared:
    """One changed file as the write that it stands for. Raises StoreError, saying why it can't be one.

    This is where a foreign change goes the way of every other write: what `prepare` refuses of an update by REST, it
    refuses here.
    """
    resource_id = _resource_id(difference)
    interaction: Update | Delete
    if difference.blob is None:
        interaction = Delete(resource_id)
    else:
        resource = _resource(repository, difference, settings)
        _check_identity(resource, resource_id)
        # What differs in meta.versionId, meta.lastUpdated and the form of the JSON only is no new version.
        interaction = Update(resource_id, resource, skip_unchanged=True)
    return prepare(Unit([interaction], author, interaction="adopt"), Rules(_no_new_id, validate))


def _no_new_id() -> str:
    raise AssertionError("an adopted resource has the id of its path")


def _reason(error: StoreError) -> str:
    """All that the issues of a refusal say, on one line."""
    texts = []
    for issue in error.issues:
        rest = [text for text in (issue.expression, issue.diagnostics) if text and text not in issue.text]
        texts.append(f"{issue.text} ({'; '.join(rest)})" if rest else issue.text)
    return " ".join(texts)


def _resource_id(difference: Difference) -> ResourceId:
    if difference.path in layout.FIRST_FILES:
        raise Invalid("is a part of the record itself, which doesn't change")
    found = layout.resource_id(difference.path)
    if found is None:
        type, _, rest = difference.path.partition("/")
        wanted = ResourceId(type, rest.rpartition("/")[2].removesuffix(".json"))
        if (
            rest.endswith(".json")
            and is_id(wanted.id)
            and layout.resource_id(layout.path(wanted)) is not None
        ):
            raise Invalid(f"is not the path of {wanted}, which is {layout.path(wanted)}")
        raise Invalid(
            "is no path of a resource (`git fhir path Type/id` prints it), and nothing else may be here"
        )
    if difference.mode not in (PLAIN, None):
        kind = _KINDS.get(difference.mode, f"of mode {difference.mode}")
        raise Invalid(f"is {kind}; expected a plain file (mode {PLAIN})")
    return found


def _resource(repository: Repository, difference: Difference, settings: Settings) -> Resource:
    assert difference.blob is not None
    if repository.size(difference.blob) > MAX_STORED:
        raise Invalid(f"is larger than {MAX_STORED} bytes")
    resource = json.loads(repository.object(difference.blob))
    if not isinstance(resource, dict):
        raise Invalid("is no JSON object")
    if len(json.dumps(resource)) > settings.max_body:
        raise Invalid(f"is larger than {settings.max_body} bytes (fhir.maxBody), white space not counted")
    return resource


def _check_identity(resource: Resource, resource_id: ResourceId) -> None:
    for element, wanted in (("resourceType", resource_id.type), ("id", resource_id.id)):
        found = resource.get(element)
        if found != wanted:
            shown = "no " + element if found is None else f"the {element} {json.dumps(found).decode()[:80]}"
            raise Invalid(f"the file has {shown}; its path asks for `{wanted}`")


def _words(repository: Repository, before: Commit, tip: str) -> str:
    """The message of the foreign tip, and below it the subjects of the foreign commits that it builds on."""
    others = between(repository, before.id, tip)[:-1]
    subjects = [f"* {_subject(repository, id)}" for id in others[:MAX_SUBJECTS]]
    if len(others) > MAX_SUBJECTS:
        subjects.append(f"* and {len(others) - MAX_SUBJECTS} more")
    message = repository.commit(tip).message.strip()
    return safe_words("\n\n".join(filter(None, [message, "\n".join(subjects)])))


def _subject(repository: Repository, id: str) -> str:
    return repository.commit(id).message.strip().partition("\n")[0] or id


def contradictions(repository: Repository, commit: str, adopts: str) -> Iterator[Problem]:
    """Where the tree of an adopt commit says something else than that of the foreign tip which it adopts."""
    ours, theirs = (bytes.fromhex(repository.commit(id).tree) for id in (commit, adopts))
    for difference in differences(lambda id: repository.object(id.hex()), ours, theirs):
        resource_id = layout.resource_id(difference.path)
        if resource_id is None or difference.mode != PLAIN or difference.old is None:
            yield Problem(difference.path, "is not as in the commit that it adopts")
            continue
        assert difference.blob is not None
        try:
            mine, other = (
                template(resource_id, json.loads(repository.object(blob))).fill(1, 0)
                for blob in (difference.old, difference.blob)
            )
        except (StoreError, AttributeError) as error:
            yield Problem(difference.path, f"can't be compared with the commit that it adopts: {error}")
            continue
        if mine != other:
            yield Problem(difference.path, "has another content than in the commit that it adopts")
