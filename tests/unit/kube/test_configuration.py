from __future__ import annotations

import datetime
import pathlib
import tempfile

import pytest
import yaml

from corral import kube
from corral_lab.control_plane import kubeconfig, pki

GOOD = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "here",
    "contexts": [{"name": "here", "context": {"cluster": "one", "user": "me"}}],
    "clusters": [{"name": "one", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "me", "user": {"token": "secret-token"}}],
}


@pytest.mark.parametrize("text", ["", "junk", "a: [", "[1, 2]", yaml.safe_dump({**GOOD, "current-context": "there"})])
async def test_what_is_no_kubeconfig_is_a_sentence(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(kube.NotConfigured, match="is no kubeconfig"):
        await kube.Kube.connect(str(path), user_agent="test")


async def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(kube.NotConfigured, match=r"there is no kubeconfig .*/missing"):
        await kube.Kube.connect(str(tmp_path / "missing"), user_agent="test")


async def test_outside_a_cluster_a_kubeconfig_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(kube.NotConfigured, match="no Pod"):
        await kube.Kube.connect(None, user_agent="test")


async def test_of_several_files_some_need_not_exist(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(GOOD))
    api = await kube.Kube.connect(f"{tmp_path / 'missing'}:{path}", user_agent="test")
    try:
        assert api.server == "https://127.0.0.1:1"
        assert await api.headers() == {"Authorization": "Bearer secret-token"}
    finally:
        await api.close()


async def test_a_key_that_stands_in_a_kubeconfig_is_in_no_other_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = pki.Authority(tmp_path, "ca", datetime.datetime.now(datetime.UTC))
    client = authority.issue("me", pki.Identity("me"))
    cluster = kubeconfig.Cluster("https://127.0.0.1:1", authority.pair.certificate)
    path = tmp_path / "config"
    path.write_text(kubeconfig.render(cluster, "me", client))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    api = await kube.Kube.connect(str(path), user_agent="test")
    try:
        # They are loaded, and a process that is killed from here on leaves none behind.
        assert len(api.ssl_context.get_ca_certs()) == 1
        assert not list(scratch.iterdir())
    finally:
        await api.close()
