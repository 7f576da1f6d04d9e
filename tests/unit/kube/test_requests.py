from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from kubernetes.aio import client

from corral import kube, metrics

from .scripted_server import serving

KITES = kube.Collection("/apis/toys.test/v1", "Kite", "kites", namespaced=True)
PATH = "/apis/toys.test/v1/namespaces/park/kites"
SEEN: kube.Object = {
    "metadata": {"namespace": "park", "name": "red", "uid": "u1", "resourceVersion": "7"},
    "status": {"height": 3},
}


def refusal(code: int, message: str = "because") -> tuple[int, Any]:
    return code, {"kind": "Status", "status": "Failure", "message": message, "code": code}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, kube.ApiRefused),
        (401, kube.ApiRefused),
        (403, kube.ApiRefused),
        (404, kube.ApiRefused),
        (409, kube.ApiConflict),
        (410, kube.ApiConflict),
        (422, kube.ApiRefused),
        (429, kube.ApiUnavailable),
        (500, kube.ApiUnavailable),
        (503, kube.ApiUnavailable),
        (504, kube.ApiUnavailable),
    ],
)
async def test_codes_are_errors_in_our_words(code: int, error: type[kube.ApiError]) -> None:
    async with serving(refusal(code, "kites are grounded")) as (api, _):
        with pytest.raises(kube.ApiError) as raised:
            await api.create(KITES, {"metadata": {"namespace": "park", "name": "red"}})
    assert type(raised.value) is error
    assert raised.value.status == code
    assert raised.value.message == "kites are grounded"
    assert str(raised.value) == f"POST {PATH}: kites are grounded"


async def test_an_error_without_a_sentence_of_its_own_names_the_code() -> None:
    async with serving((502, "<html>"), (403, [])) as (api, _):
        with pytest.raises(kube.ApiUnavailable, match="answers 502"):
            await api.get(KITES, "park", "red")
        with pytest.raises(kube.ApiRefused, match="answers 403"):
            await api.get(KITES, "park", "red")


async def test_a_lost_answer_is_unavailable_and_is_not_asked_for_twice() -> None:
    async with serving(None) as (api, server):
        with pytest.raises(kube.ApiUnavailable, match="does not answer"):
            await api.create(KITES, {"metadata": {"namespace": "park", "name": "red"}})
    assert len(server.asked) == 1


async def test_an_answer_that_is_no_json_is_unavailable() -> None:
    async with serving((200, "<html>please log in</html>")) as (api, _):
        with pytest.raises(kube.ApiUnavailable, match="no JSON"):
            await api.get(KITES, "park", "red")


async def test_behind_a_fence_everything_is_read_and_nothing_is_written() -> None:
    may_write = True
    async with serving((200, SEEN), (200, SEEN)) as (api, server):
        api.fence(lambda: may_write)
        await api.patch(KITES, SEEN, {"spec": {}})
        may_write = False
        for write in (
            api.create(KITES, {"metadata": {"namespace": "park", "name": "red"}}),
            api.patch(KITES, SEEN, {"spec": {}}),
            api.delete(KITES, SEEN),
        ):
            with pytest.raises(kube.ApiFenced, match="may not write now"):
                await write
        assert await api.get(KITES, "park", "red") == SEEN
    assert [asked.method for asked in server.asked] == ["PATCH", "GET"]


async def test_nobody_listens() -> None:
    api = kube.Kube(client.ApiClient(client.Configuration(host="http://127.0.0.1:1")))
    try:
        with pytest.raises(kube.ApiUnavailable, match="does not answer"):
            await api.get(KITES, "park", "red")
    finally:
        await api.close()


async def test_what_is_not_there_is_none_and_other_refusals_are_not() -> None:
    async with serving(refusal(404), refusal(403), (200, SEEN)) as (api, _):
        assert await api.get(KITES, "park", "red") is None
        with pytest.raises(kube.ApiRefused):
            await api.get(KITES, "park", "red")
        assert await api.get(KITES, "park", "red") == SEEN


async def test_pages_follow_each_other_and_items_say_their_kind() -> None:
    answers = (
        (200, {"metadata": {"continue": "t/1=="}, "items": [{"metadata": {"name": "a"}}]}),
        (200, {"metadata": {"continue": ""}, "items": [{"metadata": {"name": "b"}}]}),
    )
    async with serving(*answers) as (api, server):
        pages = [page async for page in api.pages(KITES, "park", label_selector="color=red")]
    assert pages == [
        [{"apiVersion": "toys.test/v1", "kind": "Kite", "metadata": {"name": name}}] for name in ("a", "b")
    ]
    first = {"limit": str(kube.PAGE), "labelSelector": "color=red"}
    assert [one.query for one in server.asked] == [first, first | {"continue": "t/1=="}]
    assert {one.path for one in server.asked} == {PATH}


async def test_a_list_of_metadata_asks_for_no_more() -> None:
    async with serving((200, {"metadata": {}, "items": []})) as (api, server):
        assert [page async for page in api.pages(KITES, metadata_only=True)] == [[]]
    assert server.asked[0].path == "/apis/toys.test/v1/kites"
    assert "as=PartialObjectMetadataList" in server.asked[0].headers["Accept"]


async def test_writes_are_strict() -> None:
    async with serving((201, {}), (200, {})) as (api, server):
        await api.create(KITES, {"metadata": {"namespace": "park", "name": "red"}})
        await api.patch(KITES, SEEN, {"spec": {}})
    assert [(one.method, one.query) for one in server.asked] == [
        (method, {"fieldValidation": "Strict"}) for method in ("POST", "PATCH")
    ]


async def test_a_patch_is_of_the_object_that_was_seen() -> None:
    async with serving((200, {})) as (api, server):
        await api.patch(KITES, SEEN, {"metadata": {"finalizers": []}})
    asked = server.asked[0]
    assert (asked.path, asked.headers["Content-Type"]) == (f"{PATH}/red", "application/merge-patch+json")
    assert asked.body == {"metadata": {"finalizers": [], "uid": "u1"}}


async def test_a_status_that_is_so_already_is_no_request() -> None:
    async with serving() as (api, server):
        assert await api.patch_status(KITES, SEEN, {"height": 3}) == SEEN
    assert server.asked == []


async def test_a_status_is_one_patch_of_what_differs() -> None:
    async with serving((200, {}), (200, {})) as (api, server):
        await api.patch_status(KITES, SEEN, {"wind": 1})
        await api.patch_status(KITES, SEEN, {"height": 4}, unchanged=True)
    assert [one.path for one in server.asked] == [f"{PATH}/red/status"] * 2
    assert server.asked[0].body == {"status": {"height": None, "wind": 1}, "metadata": {"uid": "u1"}}
    assert server.asked[1].body == {"status": {"height": 4}, "metadata": {"uid": "u1", "resourceVersion": "7"}}


async def test_a_deletion_is_of_the_object_that_was_seen_and_gone_is_well() -> None:
    left = {"kind": "Kite", "metadata": {"finalizers": ["toys.test/string"]}}
    bare = {"kind": "Kite", "metadata": {}}
    async with serving((200, left), (200, bare), (200, {"kind": "Status"}), refusal(404), refusal(409)) as (
        api,
        server,
    ):
        assert await api.delete(KITES, SEEN) == left
        for _ in range(3):
            assert await api.delete(KITES, SEEN) is None
        with pytest.raises(kube.ApiConflict):
            await api.delete(KITES, SEEN)
    assert server.asked[0].body == {"preconditions": {"uid": "u1"}}


async def read_all(api: kube.Kube) -> None:
    async for _ in api.pages(KITES, "park"):
        pass


RED = {"metadata": {"namespace": "park", "name": "red"}}


@pytest.mark.parametrize(
    ("ask", "verb", "resource"),
    [
        (read_all, "list", "kites"),
        (lambda api: api.get(KITES, "park", "red"), "get", "kites"),
        (lambda api: api.create(KITES, RED), "create", "kites"),
        (lambda api: api.patch(KITES, SEEN, {"spec": {}}), "patch", "kites"),
        (lambda api: api.patch(KITES, SEEN, {"status": {}}, subresource="status"), "patch", "kites/status"),
        (lambda api: api.delete(KITES, SEEN), "delete", "kites"),
        # What a segment is says its place, not its word.
        (lambda api: api.get(kube.LEASES, "park", "namespaces"), "get", "leases"),
        (lambda api: api.get(kube.NAMESPACES, None, "park"), "get", "namespaces"),
        (lambda api: api.create(kube.NAMESPACES, {"metadata": {"name": "park"}}), "create", "namespaces"),
    ],
)
async def test_a_request_is_counted_as_rbac_names_it(
    ask: Callable[[kube.Kube], Awaitable[object]], verb: str, resource: str
) -> None:
    counted = metrics.Metrics()
    async with serving((200, {"items": [], "metadata": {}}), refusal(503)) as (api, _):
        api.count(counted)
        await ask(api)
        with pytest.raises(kube.ApiUnavailable):
            await ask(api)
    labels = {"verb": verb, "resource": resource}
    for code in ("200", "503"):
        assert counted.registry.get_sample_value("corral_api_requests_total", labels | {"code": code}) == 1
    assert counted.registry.get_sample_value("corral_api_request_seconds_count", {"verb": verb}) == 2


async def test_a_lost_answer_is_counted_as_none() -> None:
    counted = metrics.Metrics()
    async with serving(None) as (api, _):
        api.count(counted)
        with pytest.raises(kube.ApiUnavailable):
            await api.create(KITES, RED)
    labels = {"verb": "create", "resource": "kites", "code": "unanswered"}
    assert counted.registry.get_sample_value("corral_api_requests_total", labels) == 1
