"""Fixtures that several areas share. Thin: what they start is the lab's own library."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from corral_lab import paths, progress
from corral_lab.control_plane import components, plane
from corral_lab.programs import build, recipe

_ELSEWHERE = {"CORRAL_TEST_KUBECONFIG", "CORRAL_TEST_KIND"}


@pytest.fixture(scope="session")
def programs() -> recipe.Programs:
    """The control plane's programs; where they are not on this machine yet, this builds them."""
    return build.provide(paths.Cache.find(os.environ), os.environ, progress.silent())


@pytest.fixture(scope="session")
def control_plane(programs: recipe.Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[plane.ControlPlane]:
    """One control plane for the whole run; or that of the lab in `$CORRAL_TEST_LAB`, which is left running."""
    if _ELSEWHERE & os.environ.keys():
        pytest.skip("this needs a control plane of the tests' own, for its certificates and its audit log")
    if kept := os.environ.get("CORRAL_TEST_LAB"):
        lab = paths.LabDir.at(pathlib.Path(kept))
        running = plane.ControlPlane(lab, programs, plane.remembered_address(lab) or components.LOOPBACK)
        running.start(progress.silent())
        yield running
        return
    own = plane.ControlPlane(paths.LabDir.at(tmp_path_factory.mktemp("lab")), programs)
    try:
        own.start(progress.silent())
        yield own
    finally:
        own.stop()


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> pathlib.Path:
    """A kubeconfig with all rights, for the tests that any cluster can serve.

    The cluster of `$CORRAL_TEST_KUBECONFIG` (a plain KUBECONFIG may be somebody's production, and is not taken); a kind
    cluster by pytest-kind where `$CORRAL_TEST_KIND` is set and Docker works (not run so far); else our control plane.
    """
    if given := os.environ.get("CORRAL_TEST_KUBECONFIG"):
        return pathlib.Path(given)
    if os.environ.get("CORRAL_TEST_KIND"):
        return pathlib.Path(request.getfixturevalue("kind_cluster").kubeconfig_path)
    own: plane.ControlPlane = request.getfixturevalue("control_plane")
    return own.lab.kubeconfig
