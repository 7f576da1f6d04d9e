from __future__ import annotations

import pathlib
import re

from corral import metrics

OPERATING = pathlib.Path(__file__).parents[3] / "docs" / "operating.md"
FLEET = metrics.Fleet({"Running": 3, "Pending": 1}, {"True": 2}, 5)


def families(counted: metrics.Metrics) -> dict[str, list[tuple[dict[str, str], float]]]:
    return {
        family.name: [(sample.labels, sample.value) for sample in family.samples]
        for family in counted.registry.collect()
    }


def test_the_page_for_operators_has_every_metric_and_no_other() -> None:
    counted = metrics.Metrics()
    counted.fleet = lambda: FLEET
    ours = {name for name in families(counted) if name.startswith("corral_")}
    page = set(re.findall(r"^\| `(corral_[a-z_]+?)(?:_total|_info)?` \|", OPERATING.read_text(), flags=re.MULTILINE))
    assert page == ours


def test_the_fleet_is_asked_for_at_every_scrape_and_only_where_somebody_speaks_for_it() -> None:
    counted = metrics.Metrics()
    assert "corral_hosts" not in families(counted)
    counted.fleet = lambda: FLEET
    seen = families(counted)
    assert seen["corral_virtual_machines"] == [({"status": "Pending"}, 1), ({"status": "Running"}, 3)]
    assert seen["corral_hosts"] == [({"ready": "True"}, 2)]
    assert seen["corral_removals_held"] == [({}, 5)]
    counted.fleet = None
    assert "corral_virtual_machines" not in families(counted)


def test_the_queue_is_asked_at_every_scrape() -> None:
    counted, waiting = metrics.Metrics(), ["a"]
    counted.follow(lambda: len(waiting), lambda: 1.5)
    assert families(counted)["corral_queue_depth"] == [({}, 1)]
    waiting.append("b")
    assert families(counted)["corral_queue_depth"] == [({}, 2)]
    assert families(counted)["corral_queue_oldest_seconds"] == [({}, 1.5)]
