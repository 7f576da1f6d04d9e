from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from corral import reasons
from corral.resolve import userdata

WHERE = "spec.cloudInit.userData"


def told(text: str, *, is_secret: bool = False) -> str:
    """What is said of this user data, empty where it can be taken."""
    found = userdata.fault(text, WHERE, is_secret=is_secret)
    if found is None:
        return ""
    assert found.reason in reasons.CATALOGUE
    return found.detail


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("#cloud-config\npackages:\n- nginx\n runcmd: x\n", "line 4 column 8"),
        ("#cloud-config\na: 'never closed\n", "line 3 column 1"),
        ("#cloud-config\n\ta: 1\n", "line 2 column 1"),
        ("#cloud-config\na: [1, 2\n", "line 3 column 1"),
        ("#cloud-config\na: *nobody\n", "line 2 column 4"),
        ("#cloud-config\na: \x07\n", "line 2 column 4"),
        ("#cloud-config\na: 1\n---\nb: 2\n", "line 4 column 1"),
        ("#cloud-config\n- a list\n", "line 2 column 1"),
        ("#cloud-config\njust words\n", "line 2 column 1"),
        ("\n\n  #CLOUD-CONFIG\n- a list\n", "line 4 column 1"),
        ("#cloud-config\na: " + "[" * 100 + "\n", "line 2 column 67"),
    ],
)
def test_what_cloud_init_could_not_read_is_told_by_line_and_column(text: str, place: str) -> None:
    assert told(text).startswith(f"{WHERE} {place}: ")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#cloud-config\n",
        "#cloud-config\nnull\n",
        "#cloud-config\n# a comment\n",
        "#cloud-config\npackages: [nginx]\nruncmd:\n- [touch, /x]\n",
        "#cloud-config\na: &x {b: 1}\nc: *x\n",
        "#cloud-config\nmessage: |\n  ü: [\n",
    ],
)
def test_a_cloud_config_is_taken(text: str) -> None:
    assert told(text) == ""


@pytest.mark.parametrize(
    "head",
    [
        "#!/bin/sh",
        "#include",
        "#cloud-boothook",
        "#cloud-config-archive",
        "#cloud-config-jsonp",
        "## template: jinja\n#cloud-config",
        "Content-Type: multipart/mixed; boundary=x",
        "no format that is known",
    ],
)
def test_other_formats_are_passed_on_as_they_are(head: str) -> None:
    assert told(f"{head}\n[ : ]] \t\x01") == ""


@settings(deadline=None)
@given(st.text(max_size=200))
def test_what_is_taken_is_a_mapping_to_yaml_too(body: str) -> None:
    text = f"#cloud-config\n{body}"
    if told(text):
        return
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert root is None or isinstance(root, yaml.MappingNode) or root.value in ("", "~", "null", "Null", "NULL")


@pytest.mark.parametrize(
    "text",
    [
        "#cloud-config\npassword: *hunter2\n",
        "#cloud-config\nhunter2\n",
        "#cloud-config\na: 'hunter2\n",
        "#cloud-config\na: &hunter2 1\nb: hunter2: x\n",
        "#cloud-config\na: !hunter2!x 1\n",
    ],
)
def test_nothing_of_a_secret_one_is_quoted(text: str) -> None:
    said = told(text, is_secret=True)
    assert "line" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("unit", ["[", "{a: ", "- ", "? ", "a: &x [*x, ", "'", "a: 1\n", '"\\u0041', "#\n", "!!str "])
def test_the_largest_takes_no_time(unit: str) -> None:
    text = "#cloud-config\n" + unit * (userdata.LARGEST // len(unit))
    begun = time.process_time()
    told(text)
    assert time.process_time() - begun < 2


def test_a_value_that_is_no_text_is_told_by_its_byte() -> None:
    where = "key userData of Secret s"
    assert userdata.text("ü".encode(), where) == "ü"
    for value, said in ((b"hunter2\xff", "see byte 8"), (b"x" * (userdata.LARGEST + 1), "65537 bytes")):
        found = userdata.text(value, where)
        assert not isinstance(found, str)
        assert found.reason == "UserDataMalformed"
        assert found.detail.startswith(where)
        assert said in found.detail
        assert "hunter2" not in found.detail
