from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import place

NEED = place.Need(cpu=2, memory=100)
CANDIDATE = st.builds(
    place.Candidate,
    name=st.sampled_from([f"h{number}" for number in range(8)]),
    cpus=st.integers(0, 4),
    free_memory=st.integers(-50, 200),
    refuses=st.sampled_from(["", "", "in maintenance", "not ready"]),
)
CANDIDATES = st.lists(CANDIDATE, unique_by=lambda one: one.name, max_size=8)


def fits(one: place.Candidate) -> bool:
    return not one.refuses and one.cpus >= NEED.cpu and one.free_memory >= NEED.memory


@given(candidates=CANDIDATES)
def test_the_host_that_is_chosen_fits_and_has_the_most_left(candidates: list[place.Candidate]) -> None:
    fitting = [one for one in candidates if fits(one)]
    chosen = place.place(NEED, candidates)
    if not fitting:
        assert isinstance(chosen, place.Nowhere)
        return
    assert isinstance(chosen, place.Placed)
    host = next(one for one in candidates if one.name == chosen.host)
    assert fits(host)
    assert host.free_memory == max(one.free_memory for one in fitting)


@given(candidates=CANDIDATES, data=st.data())
def test_the_order_of_hosts_does_not_matter(candidates: list[place.Candidate], data: st.DataObject) -> None:
    assert place.place(NEED, candidates) == place.place(NEED, data.draw(st.permutations(candidates)))


@given(candidates=CANDIDATES)
def test_nowhere_counts_every_host_once(candidates: list[place.Candidate]) -> None:
    chosen = place.place(NEED, [one for one in candidates if not fits(one)])
    assert isinstance(chosen, place.Nowhere)
    counted = str(chosen).partition(": ")[2].split(", ")
    total = sum(int(part.split()[0]) for part in counted if part[0].isdigit())
    assert total == len(chosen.why)


@pytest.mark.parametrize(
    ("candidates", "sentence"),
    [
        ([], "0/0 hosts: there is no Host yet"),
        (
            [
                place.Candidate("a", 4, 50),
                place.Candidate("b", 1, 500),
                place.Candidate("c", 4, 99),
                place.Candidate("d", 0, 0, "in maintenance"),
            ],
            "0/4 hosts: 1 in maintenance, 1 too few CPUs, 2 too little memory",
        ),
    ],
)
def test_nowhere_says_why_not(candidates: list[place.Candidate], sentence: str) -> None:
    assert str(place.place(NEED, candidates)) == sentence
