r"""The marks that divide a search value, and the backslash that takes their meaning away.

```
a,b          two values          split at ","
a\,b         one value `a,b`
sys|code     two parts           split at "|"
code$gt5     two components      split at "$"
\\           a backslash
\n           a backslash and an n: only the four above are escapes
```
https://hl7.org/fhir/R4/search.html#escaping
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\\([\\,|$])")
_MARK = re.compile(r"[\\,|$]")


def split(text: str, mark: str, limit: int = -1) -> list[str]:
    """The parts between the marks that no backslash stands before, with their escapes; never none.

    At most `limit` marks count, where it isn't negative.
    """
    parts: list[str] = []
    begin = place = 0
    while place < len(text):
        if text[place] == "\\":
            place += 2 if _ESCAPE.match(text, place) else 1
            continue
        if text[place] == mark and len(parts) != limit:
            parts.append(text[begin:place])
            begin = place + 1
        place += 1
    parts.append(text[begin:])
    return parts


def unescape(text: str) -> str:
    """What a part stands for."""
    return _ESCAPE.sub(r"\1", text)


def escape(text: str) -> str:
    """A part that stands for this text."""
    return _MARK.sub(r"\\\g<0>", text)
