from __future__ import annotations

import ast
import pathlib
import re
import string
from collections.abc import Iterator

import pytest

import corral
from corral import reasons
from corral.conclude import causes

ROOT = pathlib.Path(corral.__file__).parent
PLACE = {"true": 1, "false": 1, "unknown": 1, "Fact": 2, "Unmet": 0}
"""Which argument of a call is a reason, by the name of what is called."""


def sources() -> Iterator[tuple[pathlib.Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        if path.parent.name != "reasons":
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def literals(tree: ast.AST) -> Iterator[str]:
    """Every text of a piece of source, docstrings included: none of them is a code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def reasons_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every reason that is written out where a condition is made or a room is concluded."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        at = PLACE.get(name)
        given = [] if at is None else node.args[at : at + 1]
        given += [keyword.value for keyword in node.keywords if keyword.arg in {"reason", "ready"}]
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func).endswith("schema.Rule"):
            continue
        for value in given:
            yield from ((node.lineno, text) for text in literals(value))


def test_every_reason_that_is_written_out_is_in_the_catalogue() -> None:
    found = [(path, line, code) for path, tree in sources() for line, code in reasons_in(tree)]
    assert len(found) > 25, "the walk finds no calls: it looks for the wrong names"
    strange = [f"{path.relative_to(ROOT)}:{line} {code}" for path, line, code in found if code not in reasons.CATALOGUE]
    assert strange == []


def test_every_reason_of_a_driver_is_in_the_catalogue() -> None:
    assert {code for by_cause in causes.REASONS.values() for code in by_cause.values()} <= reasons.CATALOGUE.keys()


def test_every_entry_is_used() -> None:
    said = {text for _, tree in sources() for text in literals(tree)}
    assert reasons.CATALOGUE.keys() - said == set()


def test_codes_are_unique_and_read_as_kubernetes_wants_them() -> None:
    assert len(reasons.CATALOGUE) == len(reasons._CATALOGUE)
    # metav1.Condition: a CamelCase reason.
    assert [code for code in reasons.CATALOGUE if not re.fullmatch(r"[A-Z][A-Za-z]{1,63}", code)] == []


@pytest.mark.parametrize("one", reasons.CATALOGUE.values(), ids=lambda one: one.code)
def test_an_entry_tells_who_must_do_what(one: reasons.Reason) -> None:
    assert one.sentence[0].isupper()
    assert one.sentence[-1] not in ".!?"
    named = {field for _, field, *_ in string.Formatter().parse(one.next) if field is not None}
    assert named <= {"namespace", "name", "host"}
    assert bool(one.next) == (one.actor is not reasons.Actor.NOBODY)
    assert not one.final or one.actor is not reasons.Actor.NOBODY
    message = one.message(namespace="n" * 63, name="m" * 253, host="h" * 51)
    assert message.startswith(f"{one.sentence}.")
    assert len(message) <= 1024


def test_a_command_is_for_the_object_that_is_spoken_of() -> None:
    text = reasons.reason("DiskShrinkRefused").message("spec.cpu: too many!", namespace="shop", name="web", host="h1")
    assert text == "spec.cpu: too many! Next: kubectl get vm.corral.dev web -n shop -o yaml"


def test_a_detail_may_have_braces() -> None:
    assert reasons.reason("Running").message("{name} {") == "{name} {."


def test_a_code_that_is_not_there_is_a_defect() -> None:
    with pytest.raises(KeyError):
        reasons.reason("MoonInTheWay")


def test_the_page_has_a_row_a_reason_in_order() -> None:
    page = reasons.page()
    rows = re.findall(r"^\| `(\w+)` \| .* \| .* \| .* \|$", page, re.MULTILINE)
    assert rows == sorted(reasons.CATALOGUE)
    assert page == reasons.page()
    assert page.endswith("|\n")
    assert "{" not in re.sub(r"`kubectl patch [^`]*`", "", page)
