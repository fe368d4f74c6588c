"""Which animals are held out."""

from bids_alphagan.bids.split import FEWEST, drawn

ANIMALS = [f"{i:03d}" for i in range(100)]


def test_the_share_of_animals_is_held_out_and_no_session_counts_twice() -> None:
    assert len(drawn(ANIMALS, 0.2)) == 20
    assert drawn(ANIMALS * 3, 0.2) == drawn(ANIMALS, 0.2)
    assert drawn(list(reversed(ANIMALS)), 0.2) == drawn(ANIMALS, 0.2)


def test_the_first_are_held_out_as_often_as_the_last() -> None:
    places = [i for study in range(200) for i in range(10) if f"{study}x{i}" in study_of_ten(study)]
    assert len(places) == 400
    assert min(places.count(i) for i in range(10)) > 20  # each of them in about 40 of 200
    assert max(places.count(i) for i in range(10)) < 60


def study_of_ten(study: int) -> set[str]:
    return drawn([f"{study}x{i}" for i in range(10)], 0.2)


def test_few_animals() -> None:
    assert drawn(ANIMALS[: FEWEST - 1], 0.2) == set()
    assert len(drawn(ANIMALS[:FEWEST], 0.2)) == 1
    assert drawn(ANIMALS, 0) == set()
    assert len(drawn(ANIMALS[:6], 0.8)) == 5


def test_an_animal_that_joins_moves_few_others() -> None:
    moved = [drawn(ANIMALS[:n], 0.2) ^ drawn(ANIMALS[: n + 1], 0.2) for n in range(10, 99)]
    assert max(len(labels) for labels in moved) <= 2
