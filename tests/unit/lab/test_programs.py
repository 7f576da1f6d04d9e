"""Where the control plane's programs come from: the order of places, what fits, and what a build leaves behind.

The programs and the compiler here are small shell scripts, started like the real ones.
"""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
import rich.console

from corral_lab import errors, paths, progress
from corral_lab.programs import build, lookup, recipe, toolchain

WANTED = recipe.Recipe.read()
SAYS = {
    "kube-apiserver": "Kubernetes v1.37.9",
    "kube-controller-manager": "Kubernetes v1.37.9",
    "kubectl": "Client Version: v1.37.9",
    "etcd": "etcd Version: 3.7.1",
}
# Writes its `-o` argument, as `go build` does; for `go env GOVERSION` it answers a version.
_GO = """#!/bin/sh
if [ "$1" = env ]; then echo go1.99.1; exit; fi
while [ "$1" != -o ]; do shift; done
printf 'built %s' "$3" > "$2"
chmod +x "$2"
mkdir -p "$GOMODCACHE/some/module"
"""


def _script(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def _install(folder: Path, **says: str) -> None:
    for name, answer in says.items():
        _script(folder, name, f"#!/bin/sh\necho '{answer}'\n")


def _left(cache: paths.Cache) -> set[str]:
    return {str(path.relative_to(cache.root)) for path in cache.root.rglob("*") if path.is_file()}


def test_the_recipe_is_read_from_go_mod() -> None:
    assert WANTED.kubernetes.startswith("v1.37.")
    assert WANTED.go >= (1, 26)
    assert f"gitVersion={WANTED.kubernetes} " in WANTED.linker_flags()


def test_assets_come_before_path_and_path_before_the_cache(tmp_path: Path) -> None:
    cache, on_path, assets = (tmp_path / name for name in ("cache", "path", "assets"))
    _install(cache, **SAYS)
    environ = {"KUBEBUILDER_ASSETS": str(assets), "PATH": f"{on_path}:/usr/bin:/bin"}
    assert {path.parent for path in lookup.find(WANTED, environ, cache).paths.values()} == {cache}
    _install(on_path, **SAYS)
    assert {path.parent for path in lookup.find(WANTED, environ, cache).paths.values()} == {on_path}
    _install(assets, **SAYS)
    found = lookup.find(WANTED, environ, cache)
    assert {path.parent for path in found.paths.values()} == {assets}
    assert found.passed_over == ()


def test_each_program_is_looked_for_by_itself(tmp_path: Path) -> None:
    _install(tmp_path / "assets", **{name: says for name, says in SAYS.items() if name != "kube-controller-manager"})
    environ = {"KUBEBUILDER_ASSETS": str(tmp_path / "assets"), "PATH": "/usr/bin:/bin"}
    found = lookup.find(WANTED, environ, tmp_path / "cache").paths
    assert set(found) == set(SAYS) - {"kube-controller-manager"}


def test_another_version_is_passed_over_and_said_so_where_it_was_asked_for(tmp_path: Path) -> None:
    old = {name: says.replace("1.37", "1.31").replace("3.7", "3.4") for name, says in SAYS.items()}
    _install(tmp_path / "assets", **old)
    _install(tmp_path / "path", **old)
    environ = {"KUBEBUILDER_ASSETS": str(tmp_path / "assets"), "PATH": f"{tmp_path / 'path'}:/usr/bin:/bin"}
    found = lookup.find(WANTED, environ, tmp_path / "cache")
    assert found.paths == {}
    assert len(found.passed_over) == len(SAYS)
    assert f"{tmp_path / 'assets' / 'etcd'} is version 3.4" in "\n".join(found.passed_over)


def test_a_program_that_does_not_run_does_not_fit(tmp_path: Path) -> None:
    _script(tmp_path / "path", "etcd", "#!/no/such/interpreter\n")
    _script(tmp_path / "path", "kubectl", "#!/bin/sh\nexit 3\n")
    assert lookup.find(WANTED, {"PATH": str(tmp_path / "path")}, tmp_path / "cache").paths == {}


@pytest.mark.parametrize(
    ("name", "version", "fits"),
    [
        ("kubectl", (1, 37), True),
        ("kubectl", (1, 36), False),
        ("kube-apiserver", (1, 38), False),
        ("etcd", (3, 5), False),
        ("etcd", (3, 6), True),
        ("etcd", (4, 0), False),
        ("etcd", None, False),
    ],
)
def test_what_fits(name: str, version: tuple[int, int] | None, fits: bool) -> None:
    program = next(program for program in recipe.PROGRAMS if program.name == name)
    assert WANTED.fits(program, version) is fits


def test_what_is_missing_is_built_into_the_cache_and_nothing_else_is_left(tmp_path: Path) -> None:
    _script(tmp_path / "path", "go", _GO)
    _install(tmp_path / "path", etcd=SAYS["etcd"])
    cache = paths.Cache(tmp_path / "cache")
    seen = io.StringIO()
    steps = progress.Steps(rich.console.Console(file=seen, width=120))
    provided = build.provide(cache, {"PATH": f"{tmp_path / 'path'}:/usr/bin:/bin"}, steps)
    kept = cache.programs(WANTED.kubernetes)
    assert provided.etcd == tmp_path / "path" / "etcd"
    assert provided.kubectl.read_text() == "built k8s.io/kubernetes/cmd/kubectl"
    names = ("kube-apiserver", "kube-controller-manager", "kubectl")
    assert _left(cache) == {str((kept / name).relative_to(cache.root)) for name in names} | {"programs/lock"}
    assert {path.name for path in cache.root.iterdir()} == {"programs"}
    assert "… kube-apiserver (1 of 3)" in seen.getvalue()
    assert "✓ kubectl (3 of 3)" in seen.getvalue()


def test_a_failed_build_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    failing = _GO.replace("chmod +x", "echo 'no route to host' >&2; exit 7 #")
    _script(tmp_path / "path", "go", failing)
    cache = paths.Cache(tmp_path / "cache")
    with pytest.raises(errors.LabError, match="no route to host") as raised:
        build.provide(cache, {"PATH": f"{tmp_path / 'path'}:/usr/bin:/bin"}, progress.silent())
    assert "kube-apiserver could not be built (go exited with 7)" in raised.value.sentence
    assert "GOPROXY" in raised.value.next_step
    assert _left(cache) == {"programs/lock"}
    assert {path.name for path in cache.root.iterdir()} == {"programs"}


def test_what_a_killed_build_left_is_swept_by_the_next(tmp_path: Path) -> None:
    _script(tmp_path / "path", "go", _GO)
    cache = paths.Cache(tmp_path / "cache")
    kept = cache.programs(WANTED.kubernetes)
    _script(cache.root / "build-killed" / "objects", "half", "")
    _script(kept, "kubectl.partial", "half")
    build.provide(cache, {"PATH": f"{tmp_path / 'path'}:/usr/bin:/bin"}, progress.silent())
    assert {path.name for path in cache.root.iterdir()} == {"programs"}
    assert {path.name for path in kept.iterdir()} == set(SAYS)


def test_an_older_go_on_path_gives_way_to_the_packaged_one(tmp_path: Path) -> None:
    old = _script(tmp_path, "go", "#!/bin/sh\necho go1.19.8\n")
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    chosen = toolchain.find(environ, WANTED.go)
    assert chosen != old
    told = subprocess.run([chosen, "version"], env=environ, capture_output=True, text=True, check=True).stdout
    assert told.startswith("go version go1.")
    assert toolchain.find(environ, (1, 19)) == old


def test_no_go_at_all_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(errors.LabError, match=r"no Go 9\.9 or newer") as raised:
        toolchain.find({"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, (9, 9))
    assert "lab" in raised.value.next_step
