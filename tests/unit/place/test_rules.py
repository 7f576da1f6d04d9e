from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.api.v1alpha1 import placement, selectors
from corral.place import rules

KEYS, VALUES = st.sampled_from("abc"), st.sampled_from(["x", "y", ""])
LABELS = st.dictionaries(KEYS, VALUES, max_size=3)
REQUIREMENTS = st.builds(
    rules.Requirement,
    key=KEYS,
    operator=st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
    values=st.lists(VALUES, min_size=1, max_size=2, unique=True).map(lambda values: tuple(sorted(values))),
)
SELECTORS = st.lists(REQUIREMENTS, max_size=3).map(lambda some: rules.Selector(tuple(sorted(some))))


def selector(**said: Any) -> rules.Selector:
    return rules.selector(selectors.LabelSelector.model_validate(said))


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("said", "labels", "selects"),
    [
        ({}, {}, True),
        ({}, {"app": "web"}, True),
        ({"matchLabels": {"app": "web"}}, {"app": "web", "tier": "1"}, True),
        ({"matchLabels": {"app": "web"}}, {"app": "db"}, False),
        ({"matchLabels": {"app": "web"}}, {}, False),
        ({"matchLabels": {"app": ""}}, {}, False),
        ({"matchLabels": {"app": ""}}, {"app": ""}, True),
        ({"matchExpressions": [expression("app", "In", "web", "db")]}, {"app": "db"}, True),
        ({"matchExpressions": [expression("app", "In", "web", "db")]}, {}, False),
        ({"matchExpressions": [expression("app", "NotIn", "web")]}, {"app": "db"}, True),
        ({"matchExpressions": [expression("app", "NotIn", "web")]}, {"app": "web"}, False),
        ({"matchExpressions": [expression("app", "NotIn", "web")]}, {}, True),
        ({"matchExpressions": [expression("app", "Exists")]}, {"app": ""}, True),
        ({"matchExpressions": [expression("app", "Exists")]}, {}, False),
        ({"matchExpressions": [expression("app", "DoesNotExist")]}, {}, True),
        ({"matchExpressions": [expression("app", "DoesNotExist")]}, {"app": ""}, False),
        (
            {"matchLabels": {"app": "web"}, "matchExpressions": [expression("tier", "Exists")]},
            {"app": "web"},
            False,
        ),
    ],
)
def test_whom_a_selector_selects(said: dict[str, Any], labels: dict[str, str], selects: bool) -> None:
    assert selector(**said).selects(labels) == selects


def test_selectors_that_say_the_same_are_counted_once() -> None:
    one = selector(matchLabels={"a": "1", "b": "2"}, matchExpressions=[expression("c", "In", "x", "y")])
    same = selector(
        matchLabels={"b": "2"}, matchExpressions=[expression("c", "In", "y", "x", "x"), expression("a", "In", "1")]
    )
    assert one == same
    assert hash(one) == hash(same)


@given(one=SELECTORS, labels=LABELS)
def test_whom_it_selects_one_of_its_pairs_leads_to(one: rules.Selector, labels: dict[str, str]) -> None:
    if one.selects(labels) and one.pairs:
        assert set(one.pairs) & set(labels.items())


def test_what_a_spec_says() -> None:
    web, db = {"matchLabels": {"app": "web"}}, {"matchLabels": {"app": "db"}}
    said = placement.PlacementRules.model_validate(
        {
            "hostSelector": {"matchLabels": {"disk": "ssd"}},
            "affinity": {
                "required": [{"labelSelector": db, "topologyKey": placement.ZONE}],
                "preferred": [{"labelSelector": db, "topologyKey": placement.HOST, "weight": 7}],
            },
            "antiAffinity": {
                "required": [{"labelSelector": web, "topologyKey": placement.HOST}],
                "preferred": [{"labelSelector": web, "topologyKey": placement.ZONE}],
            },
            "topologySpreadConstraints": [
                {"labelSelector": web, "topologyKey": placement.ZONE},
                {
                    "labelSelector": web,
                    "topologyKey": placement.ZONE,
                    "maxSkew": 2,
                    "whenUnsatisfiable": "ScheduleAnyway",
                },
            ],
        }
    )
    near_db, near_web = selector(**db), selector(**web)
    assert rules.rules(said) == rules.Rules(
        hosts=selector(matchLabels={"disk": "ssd"}),
        near=(rules.Term(near_db, placement.ZONE),),
        far=(rules.Term(near_web, placement.HOST),),
        wishes=(
            rules.Wish(rules.Term(near_db, placement.HOST), 7),
            rules.Wish(rules.Term(near_web, placement.ZONE), -1),
        ),
        spread=(
            rules.Spread(rules.Term(near_web, placement.ZONE), 1, strict=True),
            rules.Spread(rules.Term(near_web, placement.ZONE), 2, strict=False),
        ),
    )
    assert rules.rules(said).selectors == {near_db, near_web}
    assert rules.rules(None) == rules.rules(placement.PlacementRules()) == rules.ANY
