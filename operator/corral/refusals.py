"""What the API server says of a request that it refuses, as it may be logged and told: `kube` calls it.

Its sentences quote the values that they are about, and some of them the whole object: a Secret, a guest's user data.
What is a duplicate or not among a few choices is a name. The format is that of k8s.io/apimachinery,
`field.Error.ErrorBody`.
"""

from __future__ import annotations

import json
import re

_BEFORE = re.compile(r'Invalid value(?=: ["{\[])')
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def without_values(message: str) -> str:
    """The sentence with the fields and the rules that it names, and without the values that broke them."""
    kept = []
    while found := _BEFORE.search(message):
        kept.append(message[: found.end()])
        message = _after_value(message[found.end() + len(": ") :])
    return "".join(kept) + message


def _after_value(text: str) -> str:
    """What follows the value that `text` begins with; nothing where its end can't be told."""
    # Go's quoted strings are almost JSON's: a control character is not.
    if string := _STRING.match(text):
        return text[string.end() :]
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return ""
    return text[end:]
