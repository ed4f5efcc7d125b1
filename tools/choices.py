"""What FHIR leaves open, and what this server does there: the table of choices in docs/conformance.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Choice:
    """`settings` are fields of Settings by which another choice can be made; `rows` are those of the checklist."""

    about: str
    done: str
    reason: str
    settings: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()


CHOICES = (
    Choice(
        "An update that changes nothing",
        "makes a version and a commit; `skip`: 200 with the version there is",
        "each accepted write can be cited and has its author, also the one that confirms what was there",
        ("unchanged_update",),
        ("6.10", "8.8", "9.12"),
    ),
    Choice(
        "Update as create",
        "allowed: 201",
        "records are fed from systems that have ids of their own",
        rows=("6.2",),
    ),
    Choice(
        "Version ids",
        "`1`, `2`, … of each resource, a deletion included; clients should take them as opaque",
        "numbers are short in trailers and URLs, and tell at once which of two versions is the later",
        rows=("5.4", "5.10", "6.12"),
    ),
    Choice(
        "Back after a deletion",
        "PUT revives: 201, the number after the deletion's; PATCH doesn't: 410",
        "what a patch would start from is no longer there",
        rows=("6.12", "9.3"),
    ),
    Choice(
        "Delete, and delete again",
        "204 with the ETag of the deletion, the second time too, without another version; of what never was 204",
        "a client that got no answer may send it again",
        rows=("10.1", "10.2", "10.3", "10.5"),
    ),
    Choice(
        "The body of a DELETE",
        "ignored",
        "some HTTP libraries send one; nothing in it could mean anything",
        rows=("10.7",),
    ),
    Choice(
        "Deleted resources",
        "read: 410 with ETag; the deletion's version: 410; versions before it: 200",
        "the ETag is what If-Match needs to revive it",
        rows=("4.3", "4.9", "5.5"),
    ),
    Choice(
        "Deleting history",
        "405",
        "the record keeps what it has: each commit's id stands for all before it",
        rows=("10.15",),
    ),
    Choice(
        "References to what is not there",
        "stored as they are; `enforce`: 422, and 409 for a deletion that would leave one",
        "R4 lets the target come later, and records come in pieces",
        ("referential_integrity",),
        ("10.8",),
    ),
    Choice(
        "If-Match",
        'compares weakly, takes `W/"3"`, `"3"`, `3`, lists and `*`; another version is 412, and so is what never was',
        "FHIR's tags are weak, so a strong comparison could never succeed",
        rows=("7.1", "7.2", "7.3", "7.6"),
    ),
    Choice(
        "If-Match left out",
        "accepted: `versioned`, not `versioned-update`",
        "R4 lets clients update without; those who care can always send it",
        rows=("7.5",),
    ),
    Choice(
        "If-None-Match on PUT",
        "as in R5: `*` only creates",
        "R4 is silent, and there is no other way to create under an id without overwriting",
        rows=("7.9",),
    ),
    Choice(
        "Criteria of conditional writes",
        "always strict, whatever Prefer says; without a criterion that selects 400, without any 405",
        "a parameter that is ignored would make a write hit what nobody meant",
        rows=("8.7", "10.13", "11.9"),
    ),
    Choice(
        "Conditional update, no match, an id in use",
        "409, as in R5",
        "otherwise it would overwrite a resource that the criteria did not select",
        rows=("8.3",),
    ),
    Choice(
        "Conditional delete without a match",
        "204",
        "the literal reading of R4, and the same as for an id that never was",
        rows=("10.11",),
    ),
    Choice(
        "Conditional delete of several",
        "412; `multiple`: all in one commit, at most `fhir.maxEntries`",
        "a criterion that selects more than was meant should cost nothing",
        ("conditional_delete",),
        ("10.11", "10.14"),
    ),
    Choice(
        "What a write must pass",
        "400 for what can't be parsed, unknown elements, types, cardinality, formats; 422 for required bindings, "
        "invariants, profiles. `structure`: the 400 part alone, `off`: neither. No request can choose",
        "what is in the record once is in it for good",
        ("validation",),
        ("6.9", "11.4", "17.7"),
    ),
    Choice(
        "Unknown search parameters",
        "ignored, absent from the self link, and told in an OperationOutcome; 400 with `Prefer: handling=strict`. "
        "`strict`: 400 unless the request is lenient",
        "lenient is what R4 recommends, but nobody should take the answer for what was asked",
        ("search_handling",),
        ("12b.8", "3.11.7"),
    ),
    Choice(
        "Unknown modifiers, values that can't be read",
        "400, lenient or not",
        "the answer would be one to another question",
        rows=("12b.9", "12b.10"),
    ),
    Choice(
        "Pages",
        "50 entries, at most 1,000; `total` is exact, or left out where it would take counting very many versions; later pages show nothing that was written since the first",
        "whoever follows the links sees each match once, whatever others write",
        rows=("12a.4", "12a.7", "15.13"),
    ),
    Choice(
        "The cost of a search",
        "422 too-costly beyond a number of steps",
        "one question must not stop the answers to all others",
        ("search_limit",),
    ),
    Choice(
        "The length of a chain", "five links; more is 400", "each link multiplies the work", ("max_chain",)
    ),
    Choice(
        "Search at all",
        "on; `off`: searches and conditions answer 501, and are not claimed",
        "a pure archive writes faster without",
        ("search",),
    ),
    Choice(
        "Kinds of patch",
        "JSON Patch, FHIRPath Patch, XML Patch, and beyond R4 merge patch (RFC 7396), as `application/json` too",
        "a widely used client library sends merge patches",
        rows=("9.1", "9.15"),
    ),
    Choice(
        "A narrative that a patch leaves as it was",
        "removed, with a warning to who asks for the OperationOutcome; `keep`, or `reject`: 422",
        "a text that contradicts the data may harm the patient",
        ("patch_narrative",),
        ("9.11",),
    ),
    Choice(
        "Without Prefer",
        "the representation after single writes, minimal in response Bundles",
        "one resource is what a client needs next; a Bundle of thousands is not",
        rows=("3.11.4", "14.15"),
    ),
    Choice(
        "Conditional reads",
        "by ETag and by date; our own Last-Modified, sent back, gets the resource once more",
        "HTTP dates have whole seconds: two versions of one second must not be taken for one another",
        rows=("4.7", "4.8", "4.10"),
    ),
    Choice(
        "Unknown parameters of reads and histories",
        "400",
        "a read with `?status=active` would look like a search that it is not",
        rows=("1.12", "15.12"),
    ),
    Choice(
        "What is tagged SUBSETTED",
        "is stored as it says, with the tag",
        "a client may mean it, and the whole version before it is kept",
        rows=("2.15",),
    ),
    Choice(
        "Formats",
        "JSON and XML under each of their names; without a wish FHIR's JSON; all else 406 or 415",
        "what a server can't read or write it should refuse and not guess",
        rows=("2.4", "2.5", "2.17"),
    ),
    Choice(
        "Two things of one transaction",
        "a resource may be written once; conditional references see what the transaction writes",
        "the first is R4's rule, the second lets a transaction be sent without knowing what is there",
        rows=("14.8", "14.12"),
    ),
    Choice(
        "The order of a batch",
        "as of a transaction: DELETE, POST, PUT, PATCH, then reads; each write a commit of its own",
        "R4 lets a server choose; so the two kinds of Bundle differ in one thing only",
        rows=("14.2",),
    ),
    Choice(
        "Instants",
        "microseconds in UTC, later with each version of a resource; all of a transaction share one",
        "two writes of one millisecond still have an order",
        rows=("14.17", "15.8", "17.9"),
    ),
    Choice(
        "History by `_at`",
        "a deletion is current from its instant until the revival",
        "that the resource was not there is what was true then",
        rows=("15.9",),
    ),
    Choice(
        "Bundles of type history",
        "refused: 405; `accept`: taken over, with the ids and the number of the versions they hold",
        "whoever may post one writes the past of a resource",
        ("history_bundles",),
        ("14.19",),
    ),
    Choice(
        "Commits by hand",
        "refused until `git fhir adopt`: writes 503; `adopt`: taken in at the next write, if all is valid",
        "whoever may push should know that it becomes part of the record",
        ("foreign_commits",),
        ("15.15", "15.17"),
    ),
    Choice(
        "The service base",
        "from the request's Host, or from what a trusted proxy says, or fixed",
        "links must be those that the client can follow",
        ("base_url",),
        ("1.8", "1.9"),
    ),
    Choice(
        "Host names of an anonymous server",
        "loopback names and those that are configured; all else 421",
        "a web page could have its own name point at this machine (DNS rebinding)",
        ("host_name",),
    ),
    Choice(
        "Proxies that are believed",
        "none unless they are named",
        "anybody can send X-Forwarded headers",
        ("trusted_proxy",),
        ("1.9",),
    ),
    Choice(
        "Web pages of other origins",
        "none unless they are named; never `*` without authentication",
        "a page can do what the person in front of the browser could",
        ("cors_origin",),
        ("3.8",),
    ),
    Choice(
        "What the caller may not see",
        "404 as for what never was; of a type without any grant 403; a write to it 403, there or not",
        "neither a status nor a count may tell that there is something",
        ("withhold", "anonymous_scope"),
        ("4.5", "14.20"),
    ),
    Choice(
        "Who has looked",
        "a line for each request in the access journal; `fhir.auditEvents` makes it searchable as AuditEvents, instead of stored ones",
        "git shows who wrote; that a record was read leaves no other trace",
        ("access_journal", "audit_events"),
    ),
    Choice(
        "Size of a resource, of a Bundle, number of entries",
        "16 MB, 128 MB, 20,000; more is 413",
        "a request lies in memory as a whole",
        ("max_body", "max_bundle", "max_entries"),
        ("17.11",),
    ),
    Choice(
        "A busy store",
        "a write waits 10 s for its lock, then 503 with Retry-After, and nothing has happened",
        "longer than that a client gives up and can't know",
        ("lock_timeout",),
    ),
    Choice(
        "Answers before the disk has it",
        "none; `off`: no fsync at all, for throw-away test data",
        "a 201 is a promise",
        ("durability",),
    ),
)
