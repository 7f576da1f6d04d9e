from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from corral import kube

LEAF = st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"])
VALUE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.sampled_from("abcd"), VALUE, max_size=4)


def applied(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, word for word."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = applied(result.get(name), value)
    return result


@given(have=OBJECT, want=OBJECT)
def test_applying_the_patch_gives_what_is_wanted(have: kube.Object, want: kube.Object) -> None:
    assert applied(have, kube.merge_patch(have, want)) == want


@given(have=OBJECT, want=OBJECT)
def test_the_patch_is_empty_where_and_only_where_nothing_differs(have: kube.Object, want: kube.Object) -> None:
    assert kube.merge_patch(have, have) == {}
    assert (kube.merge_patch(have, want) == {}) == (have == want)


def test_only_what_differs_is_sent() -> None:
    have = {"keep": {"a": 1, "b": 2}, "drop": 1, "list": [1, 2]}
    want = {"keep": {"a": 1, "b": 3}, "list": [2], "new": {"x": {}}}
    assert kube.merge_patch(have, want) == {"keep": {"b": 3}, "drop": None, "list": [2], "new": {"x": {}}}
