"""The rows of the REST checklist, in a few words each: docs/conformance.md shows which tests name which row.

A test names rows at the start of its docstring: `4.3: 410 with the ETag of the deletion.` or `7.1, 7.2`.
A row that no test names says why; as soon as one does, the reason has to go.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`level` is FHIR's word for how binding it is; HTTP and R5 say who asks, "ours" what FHIR leaves open."""

    number: str
    level: str
    title: str
    why_untested: str | None = None


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    source: str
    rows: tuple[Row, ...]


_HTTP = "https://hl7.org/fhir/R4/http.html"
_OPERATIONS = "https://hl7.org/fhir/R4/operations.html"

_URLS = (
    Row("1.1", "SHALL", "paths and ids are case-sensitive"),
    Row("1.2", "SHALL", "an id is 1 to 64 of `A-Z a-z 0-9 - .`; anything else 400"),
    Row("1.3", "ours", "`.` and `..` are refused, `.git` is an id like others"),
    Row("1.4", "SHOULD", "ids are percent-decoded once, and never leave their folder"),
    Row("1.5", "SHALL", "an unknown resource type is 404, whatever the verb"),
    Row("1.6", "SHALL", "`_history`, `_search`, `metadata` and `$…` are neither types nor ids"),
    Row("1.7", "R5", "a slash at the end makes no difference, and is not redirected"),
    Row("1.8", "ours", "the base has no slash at its end, and every URL made is well-formed"),
    Row("1.9", "MAY", "the base can be configured, or come from a trusted proxy"),
    Row("1.10", "SHALL NOT", "http and https of one URL mean the same"),
    Row("1.11", "HTTP", "a wrong verb is 405 with Allow"),
    Row("1.12", "ours", "a parameter that a read doesn't know is refused"),
)

_MEDIA = (
    Row("2.1", "SHALL", "`application/fhir+json` answers in its own name"),
    Row("2.2", "SHOULD", "generic JSON and XML types answer in the name that was asked for"),
    Row("2.3", "MAY", "the old names (`application/json+fhir`) work"),
    Row("2.4", "HTTP", "without Accept JSON; wildcards and q-values count"),
    Row("2.5", "SHOULD", "what can't be sent is 406, what can't be read 415"),
    Row("2.6", "SHALL", "`_format` outweighs Accept, with short names"),
    Row("2.7", "ours", "a `+` of `_format` that arrives as a space"),
    Row("2.8", "SHALL", "`_format` works everywhere, and not for request bodies"),
    Row("2.9", "SHALL", "general parameters are neither criteria nor unknown"),
    Row("2.10", "MAY", "`_pretty` changes the form alone"),
    Row("2.11", "SHALL", "UTF-8 only: other charsets 415, broken bytes 400, a BOM is tolerated"),
    Row("2.12", "SHOULD", "another fhirVersion is 406 or 415"),
    Row("2.13", "HTTP", "gzip both ways, Vary; an unknown Content-Encoding is 415"),
    Row("2.14", "SHOULD", "`_summary` and `_elements` on reads, tagged SUBSETTED"),
    Row("2.15", "ours", "who sends back what is SUBSETTED"),
    Row("2.16", "SHOULD", "every error of every layer is an OperationOutcome"),
    Row("2.17", "ours", "formats that aren't offered are refused, and not claimed"),
    Row("2.18", "SHALL", "Binary: the resource in FHIR's types, the content in others"),
)

_HEADERS = (
    Row("3.1", "SHALL", "ETag is weak, quoted, and the version id"),
    Row("3.2", "SHOULD", "Last-Modified is lastUpdated as an HTTP date"),
    Row("3.3", "SHALL", "entries of Bundles have no ETag but response.etag and meta.versionId"),
    Row("3.4", "ours", "headers by interaction", "The heading of 3.10, which is tested."),
    Row("3.5", "SHOULD", "X-Request-Id comes back and stands in the commit; X-Correlation-Id"),
    Row("3.6", "SHALL NOT", "X-Intermediary has no effect"),
    Row("3.7", "MAY", "X-Provenance is stored with what was written as its target"),
    Row("3.8", "SHOULD", "CORS: preflight, allowed and exposed headers"),
    Row("3.9", "HTTP", "OPTIONS is 204 with Allow, and Accept-Patch"),
    Row("3.10", "SHOULD", "ETag, Last-Modified, Location and Content-Location of each interaction"),
    Row("3.11.1", "SHOULD", "`return=minimal`: no body, all else unchanged"),
    Row("3.11.2", "SHOULD", "`return=representation`: the stored resource"),
    Row("3.11.3", "SHOULD", "`return=OperationOutcome`: hints and warnings, no errors"),
    Row("3.11.4", "MAY", "without Prefer the representation, never an outcome"),
    Row("3.11.5", "SHOULD", "Prefer counts for every kind of write that succeeds"),
    Row("3.11.6", "HTTP", "several preferences, any case, unknown ones ignored"),
    Row("3.11.7", "SHOULD", "`handling=strict` and `lenient` in searches"),
    Row("3.11.8", "HTTP", "`respond-async` is answered at once"),
)

_READ = (
    Row("4.1", "SHALL", "200, the id of the URL, ETag, Last-Modified"),
    Row("4.2", "SHALL", "what never was is 404"),
    Row("4.3", "SHALL", "what is deleted is 410, with the ETag of the deletion"),
    Row("4.4", "SHALL", "what came back is 200"),
    Row("4.5", "ours", "404 and 410 tell nothing to who may not read"),
    Row("4.6", "MAY", "If-None-Match: 304 for the current version"),
    Row("4.7", "MAY", "If-Modified-Since, unless If-None-Match is there"),
    Row("4.8", "ours", "two versions of one second: no false 304"),
    Row("4.9", "ours", "a conditional read of what is deleted is 410"),
    Row("4.10", "SHALL", "conditionalRead claims both headers"),
)

_VREAD = (
    Row("5.1", "SHALL", "id and versionId are those of the URL"),
    Row("5.2", "SHOULD", "ETag and Last-Modified are the version's own"),
    Row("5.3", "SHOULD", "the current version can be read by its number"),
    Row("5.4", "SHALL", "unknown versions are 404; `01` is not `1`"),
    Row("5.5", "SHOULD", "the version of a deletion is 410, those before it 200"),
    Row("5.6", "SHOULD", "versions that are withheld are 404", "Every version is kept and can be read."),
    Row("5.7", "HTTP", "HEAD: the same headers, no body"),
    Row("5.8", "ours", "a version never changes"),
    Row("5.9", "ours", "conditional vread; private caches may keep versions, not their absence"),
    Row("5.10", "SHALL", "version ids are unique, from 1"),
    Row("5.11", "ours", "an error has details.text and diagnostics"),
)

_UPDATE = (
    Row("6.1", "SHALL", "200, the next version, a new ETag"),
    Row("6.2", "SHALL", "an unknown id is created under that id: 201 and Location"),
    Row("6.3", "SHALL", "a body without id is 400"),
    Row("6.4", "SHALL", "a body with another id is 400"),
    Row("6.5", "SHALL", "another or an unknown type, and what can't be parsed"),
    Row("6.6", "SHALL", "versionId and lastUpdated of the body are ignored, the rest of meta kept"),
    Row("6.7", "ours", "tags, labels and profiles are replaced, not merged"),
    Row("6.8", "SHALL", "no version of the past can be updated"),
    Row("6.9", "SHOULD", "400 for what is no FHIR, 422 for what breaks a rule"),
    Row("6.10", "ours", "an update that changes nothing makes a version, unless a setting says otherwise"),
    Row("6.11", "SHOULD", "what was submitted is what is read"),
    Row("6.12", "MAY", "a PUT revives what was deleted: 201, the next number"),
    Row("6.13", "SHALL", "Location with 201, and not with a plain update"),
    Row("6.14", "R5", "unique indexes", "There are none: FHIR R4 has no interaction that makes one."),
)

_CONCURRENCY = (
    Row("7.1", "SHALL", "If-Match: the current version goes on, another is 412"),
    Row("7.2", "SHALL", "it compares weakly; unquoted tags, lists and `*` work"),
    Row("7.3", "HTTP", "a malformed one is 400, one for what never was 412"),
    Row("7.4", "ours", "for what is deleted it means the deletion"),
    Row("7.5", "MAY", "If-Match is not required, and `versioned` says so"),
    Row("7.6", "ours", "412, not 409, for a stale version"),
    Row("7.7", "SHALL", "on PUT, PATCH, DELETE, conditional writes, and entries of Bundles"),
    Row("7.8", "ours", "of many at once with one If-Match, one succeeds"),
    Row("7.9", "R5", "If-None-Match on PUT"),
)

_CONDITIONAL_UPDATE = (
    Row("8.1", "SHALL", "no match, no id: created"),
    Row("8.2", "SHALL", "no match, a free id: created under it"),
    Row("8.3", "R5", "no match, an id in use: 409"),
    Row("8.4", "SHALL", "one match, no id or the same: updated"),
    Row("8.5", "SHALL", "one match, another id: 400"),
    Row("8.6", "SHALL", "several matches: 412"),
    Row("8.7", "ours", "criteria are strict, and never select everything"),
    Row("8.8", "ours", "what is deleted is no match; nothing changed is 200"),
)

_PATCH = (
    Row("9.1", "SHALL", "JSON, XML and FHIRPath Patch; others 415 with Accept-Patch"),
    Row("9.2", "SHALL", "answered as an update, with If-Match"),
    Row("9.3", "ours", "404 for what is not there, 410 for what is deleted; nothing comes back"),
    Row("9.4", "SHALL", "all operations of RFC 6902, all or none"),
    Row("9.5", "SHALL", "a failed test is 422, a broken document 400"),
    Row("9.6", "ours", "a patch sees the resource as it is read, with meta"),
    Row("9.7", "SHALL", "id and type stay; the outcome must be valid"),
    Row("9.8", "SHALL", "XML Patch with namespaces"),
    Row("9.9", "SHALL", "FHIRPath Patch: its operations, its paths, its errors"),
    Row("9.10", "SHALL", "backbone elements are given in parts"),
    Row("9.11", "SHALL", "a narrative that no longer fits does not stay"),
    Row("9.12", "ours", "a patch that changes nothing is as such an update"),
    Row("9.13", "R5", "a patch stands in history as PUT"),
    Row("9.14", "SHOULD", "conditional patch: none 404, several 412"),
    Row("9.15", "MAY", "patches in Bundles, as Parameters or in a Binary"),
)

_DELETE = (
    Row("10.1", "SHOULD", "204, or 200 with an outcome when asked"),
    Row("10.2", "SHOULD", "what never was: 204"),
    Row("10.3", "SHOULD", "what is deleted already: 204, no version"),
    Row("10.4", "SHALL", "one more version without content; earlier ones stay"),
    Row("10.5", "MAY", "the ETag is that of the deletion"),
    Row("10.6", "SHALL", "it is gone from searches, includes, chains, compartments"),
    Row("10.7", "SHALL", "a body is ignored"),
    Row("10.8", "SHOULD", "what is referred to can be protected: 409 with who refers to it"),
    Row("10.9", "ours", "If-Match: stale 412, current 204"),
    Row("10.10", "SHALL", "an unknown type is 404"),
    Row("10.11", "SHALL", "conditional delete: none, one, several"),
    Row("10.12", "R5", "criteria over all types are 405"),
    Row("10.13", "ours", "a type is never wiped"),
    Row("10.14", "R6", "a conditional delete heeds If-Match"),
    Row("10.15", "R6", "history can't be deleted: 405"),
    Row(
        "10.16",
        "R6",
        "`$purge`, `$expunge`, `$erase`",
        "R4 has none of them, and they would rewrite history, which is this server's record. "
        "They are unknown operations (404), as 1.6 tests.",
    ),
)

_CREATE = (
    Row("11.1", "SHALL", "201, Location with the version, ETag, Last-Modified"),
    Row("11.2", "SHALL", "the client's id is ignored"),
    Row("11.3", "SHALL", "versionId and lastUpdated are ignored, tags and profiles kept"),
    Row("11.4", "SHALL", "400, 422, 404, each with an outcome"),
    Row("11.5", "SHALL", "a missing or another resourceType is 400"),
    Row("11.6", "HTTP", "POST to an instance is 405"),
    Row("11.7", "ours", "ids can't be guessed, and are never given twice"),
    Row("11.8", "SHALL", "If-None-Exist: none 201, one 200 and nothing written, several 412"),
    Row("11.9", "ours", "criteria that select nothing are 400; of two at once one creates"),
    Row("11.10", "R5", "303 for duplicates", "R4 knows 200 for it, and that is what 11.8 tests."),
    Row("11.11", "HTTP", "bodies that are no FHIR are 415"),
)

_SEARCH = (
    Row("12a.1", "SHALL", "GET, and POST to `_search` with a form, find the same"),
    Row("12a.2", "SHALL", "over all types, and in compartments"),
    Row("12a.3", "SHALL", "200 and a searchset, also where nothing is found"),
    Row("12a.4", "SHALL", "total counts matches; `_total`, `_count=0`"),
    Row("12a.5", "SHALL", "each entry has fullUrl and search.mode"),
    Row("12a.6", "SHALL", "the self link says what was used"),
    Row("12a.7", "SHALL", "pages: complete, stable, with links"),
    Row("12a.8", "HTTP", "HEAD"),
    Row("12b.8", "SHOULD", "an unknown parameter: ignored and told, or refused when strict"),
    Row("12b.9", "SHALL", "an unknown modifier is refused"),
    Row("12b.10", "SHOULD", "a value that can't be read is 400"),
    Row("12b.11", "SHOULD", "an empty parameter is ignored; and, or, escapes"),
    Row("12b.12", "SHOULD", "`_sort` and `_include` of what is not known"),
    Row("12c.1", "SHALL", "strings"),
    Row("12c.2", "SHALL", "tokens"),
    Row("12c.3", "SHALL", "references"),
    Row("12c.4", "SHALL", "dates"),
    Row("12c.5", "SHALL", "numbers and quantities"),
    Row("12c.6", "SHALL", "URIs"),
    Row("12c.7", "SHALL", "composites"),
    Row("12c.8", "SHALL", "positions (special)"),
    Row("12c.9", "SHALL", "`:missing` on all"),
    Row("12c.10", "SHOULD", "chains and `_has`"),
    Row("12c.11", "SHOULD", "parameters of all resources, `_filter`, `_list`, text"),
    Row("12c.12", "SHOULD", "`_include`, `_revinclude`, iterate, wildcards"),
    Row("12c.13", "SHOULD", "`_sort`"),
    Row("12c.14", "SHOULD", "`_count`, `_summary`, `_elements`"),
    Row("12c.15", "SHOULD", "`_contained`"),
    Row("12c.16", "SHALL", "what is deleted is never found"),
    Row("12c.17", "ours", "`_id` finds no versions"),
)

_CAPABILITIES = (
    Row("13.1", "SHALL", "a CapabilityStatement of this instance"),
    Row("13.2", "MAY", "`mode`: any of the three is answered in full, others 400"),
    Row("13.3", "SHALL", "every claim is true"),
    Row("13.4", "R5", "its ETag changes with its content alone"),
    Row("13.5", "SHOULD", "`_format`, HEAD, fhirVersion"),
    Row("13.6", "SHALL NOT", "versionId without versions", "Every resource here has versions."),
)

_BUNDLE = (
    Row("14.1", "SHALL", "what is no batch or transaction, or lacks a part, is 400"),
    Row("14.2", "SHALL", "batch: each entry answered in its place, failures its own"),
    Row("14.3", "SHALL", "entries of a batch can't refer to one another"),
    Row("14.4", "SHALL", "transaction: all or nothing, one outcome that names the entry"),
    Row("14.5", "SHALL", "the status is that of the entry that failed"),
    Row("14.6", "SHALL", "an empty one is no error"),
    Row("14.7", "SHALL", "delete, create, update, read, in this order"),
    Row("14.8", "SHALL", "a resource stands in a transaction once"),
    Row("14.9", "SHALL", "references to fullUrls are resolved, circles too"),
    Row("14.10", "SHALL", "in references, URIs and narrative; not in canonicals and text"),
    Row("14.11", "SHALL", "fullUrls of updates and of conditional creates that matched"),
    Row("14.12", "SHALL", "conditional references: one match, or the transaction fails"),
    Row("14.13", "SHALL", "references to versions stay, unless marked to be resolved"),
    Row("14.14", "SHALL", "conditions of entries work as the headers do"),
    Row("14.15", "SHALL", "status, location, etag, lastModified; resources as Prefer says"),
    Row("14.16", "SHALL", "URLs are relative to the base, foreign ones 400; HEAD entries, operations"),
    Row("14.17", "ours", "one transaction, one commit, one instant"),
    Row("14.18", "ours", "Bundles to process don't nest"),
    Row("14.19", "SHOULD", "other types of Bundle"),
    Row("14.20", "ours", "entries that the caller may not do"),
)

_HISTORY = (
    Row("15.1", "SHALL", "of an instance, a type, the server: a history Bundle"),
    Row("15.2", "SHALL", "newest first, deletions too"),
    Row("15.3", "SHALL", "each version once"),
    Row("15.4", "SHALL", "fullUrl without version, request and response, no resource of a deletion"),
    Row("15.5", "SHALL", "which method, URL and status stand for what was done"),
    Row("15.6", "SHOULD", "response.lastModified, of deletions too"),
    Row("15.7", "SHOULD", "an unknown id is 404, a deleted one has a history"),
    Row("15.8", "SHALL", "`_since`: at or after, with time zone"),
    Row("15.9", "SHALL", "`_at`: what was current at some point of a period"),
    Row("15.10", "SHOULD", "`_count`, and 0 of it; `_list` is refused"),
    Row(
        "15.11", "R5", "`_sort`", "R4 has none: it is refused as every unknown parameter, which 15.12 tests."
    ),
    Row("15.12", "SHALL", "each parameter once, no modifiers"),
    Row("15.13", "SHALL", "total and links; pages stay as they were while others write"),
    Row("15.14", "ours", "a `+` that arrives as a space; general parameters"),
    Row("15.15", "SHALL", "one line of versions, whatever git's branches look like"),
    Row("15.16", "SHOULD", "history that is withheld", "Every version is kept and can be read."),
    Row("15.17", "ours", "commits that change no resource show nowhere"),
    Row("15.18", "HTTP", "HEAD works, POST is 405"),
)

_OPERATION_ROWS = (
    Row("16.1", "SHALL", "unknown operations are 404; GET where nothing changes; Parameters or a resource"),
    Row("16.2", "SHALL", "`$validate`: 200 and an outcome, whatever it says"),
    Row("16.3", "MAY", "`$meta` of resources and versions"),
    Row("16.4", "MAY", "`$meta-add` and `$meta-delete` change labels, here as a version"),
    Row("16.5", "MAY", "`$everything` of patients and encounters"),
    Row("16.6", "ours", "`$diff`", "No operation of FHIR's: `git fhir diff` shows what changed."),
    Row("16.7", "MAY", "`$versions`, `$graphql`, `$convert`", "Not built: 404, and not claimed."),
    Row("16.8", "R6", "`$purge`", "See 10.16."),
)

_FIDELITY = (
    Row("17.1", "SHALL", "decimals keep their digits"),
    Row("17.2", "SHALL", "numbers are no strings; broken numbers are 400"),
    Row("17.3", "SHALL", "no nulls, empty strings, arrays or objects"),
    Row("17.4", "SHALL", "`_element` siblings stay aligned"),
    Row("17.5", "SHALL", "comments and duplicate names are 400"),
    Row("17.6", "MAY", "the order of properties is the client's"),
    Row("17.7", "ours", "unknown elements are refused, unknown extensions kept"),
    Row("17.8", "SHALL", "narrative is the safe subset of XHTML"),
    Row("17.9", "SHALL", "dates keep their precision and offset; lastUpdated only grows"),
    Row("17.10", "SHALL", "Unicode as it came; control characters are refused"),
    Row("17.11", "ours", "depth and size have limits, and never end in 500"),
    Row("17.12", "SHALL", "what stands in meta stays"),
)

SECTIONS = (
    Section("1. URLs, ids, routing", f"{_HTTP}#root", _URLS),
    Section("2. Formats and general parameters", f"{_HTTP}#mime-type", _MEDIA),
    Section("3. Headers", f"{_HTTP}#custom", _HEADERS),
    Section("4. read", f"{_HTTP}#read", _READ),
    Section("5. vread", f"{_HTTP}#vread", _VREAD),
    Section("6. update", f"{_HTTP}#update", _UPDATE),
    Section("7. Version-aware writes", f"{_HTTP}#concurrency", _CONCURRENCY),
    Section("8. conditional update", f"{_HTTP}#cond-update", _CONDITIONAL_UPDATE),
    Section("9. patch", f"{_HTTP}#patch", _PATCH),
    Section("10. delete", f"{_HTTP}#delete", _DELETE),
    Section("11. create", f"{_HTTP}#create", _CREATE),
    Section("12. search", "https://hl7.org/fhir/R4/search.html", _SEARCH),
    Section("13. capabilities", f"{_HTTP}#capabilities", _CAPABILITIES),
    Section("14. batch and transaction", f"{_HTTP}#transaction", _BUNDLE),
    Section("15. history", f"{_HTTP}#history", _HISTORY),
    Section("16. operations", _OPERATIONS, _OPERATION_ROWS),
    Section("17. What is stored is what was sent", "https://hl7.org/fhir/R4/json.html", _FIDELITY),
)
