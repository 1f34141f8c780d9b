"""What `dr predict` prints, row by row."""

import json

import pytest

from dr_cli.cli.rows import Layout, Tally, fit, print_records, table_row

GOOD = {
    "path": "a.jpg", "predicted": 2, "name": "Moderate", "probabilities": [0, 0, 0.6, 0.4, 0],
    "referable": True, "referable_probability": 0.9, "gradable": True, "quality": 0.25,
    "verdict": "good", "reason": "", "error": None, "note": "", "novelty": None,
}  # fmt: skip
BLURRED = GOOD | {"gradable": False, "verdict": "reject", "reason": "blurred"}
LONG = "photographs/of/a/clinic/with/long/names/" + 20 * "x" + "/IDRiD_0423_left.jpg"


@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_row_is_wider_than_the_terminal_and_no_word_is_broken(width):
    layout = Layout(width)
    bad = dict.fromkeys(GOOD) | {"path": LONG, "error": "not an image, or " + 12 * "in a format "}
    for record in (GOOD | {"path": LONG}, BLURRED | {"path": LONG}, bad):
        lines = table_row(record, layout).splitlines()
        assert max(map(len, lines)) < width
        assert "left.jpg" in lines[0]  # names differ at their ends
        said = set(" ".join(lines).split())
        wanted = ["format"] if record["error"] else ["Moderate"]
        assert [word for word in said if any(w in word for w in wanted)]
    assert table_row(GOOD, layout).split()[:3] == ["a.jpg", "2", "Moderate"]
    assert layout.head().split()[0] == "photograph"


def test_an_error_stands_on_a_line_of_its_own():
    bad = dict.fromkeys(GOOD) | {"path": "b.jpg", "error": "no such file"}
    assert table_row(bad, Layout(80)).splitlines() == ["b.jpg", "    no such file"]


def test_an_ungradable_photographs_grade_stands_in_brackets():
    (line,) = table_row(BLURRED, Layout(80)).splitlines()
    assert line.split(maxsplit=1) == ["a.jpg", "ungradable: blurred (2 Moderate)"]
    assert len(table_row(BLURRED | {"path": LONG}, Layout(60)).splitlines()) <= 2


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_in_json_that_a_photograph_is_ungradable_comes_first(form, capsys):
    print_records([GOOD, BLURRED], form)
    said = capsys.readouterr().out
    good, blurred = json.loads(said) if form == "json" else map(json.loads, said.splitlines())
    assert list(good) == list(GOOD)
    assert list(blurred)[:3] == ["gradable", "verdict", "reason"]
    assert (good, blurred) == (GOOD, BLURRED)


def test_a_text_fits_exactly():
    assert fit("abc", 5) == "abc  "
    assert fit("abcdefghij", 5) == "a…hij"
    assert len(fit("目" * 20, 9)) < 9  # each takes two columns
    assert fit("a\nb", 6) == "a\\nb  "


def test_the_tally_counts_each_once():
    tally = Tally()
    bad = dict.fromkeys(GOOD) | {"path": "b.jpg", "error": "no such file"}
    doubtful = GOOD | {"predicted": 0, "note": "graded 0, yet referable: …"}
    healthy = GOOD | {"predicted": 1, "referable": False, "note": "the first of several pages"}
    for record in (GOOD, doubtful, BLURRED, healthy, bad):
        tally.count(record)
    assert tally.total() == 5
    said = tally.tell()
    assert said.startswith("4 graded: 1 ungradable, 2 referable of the others; 1 failed; 1 marked")


def test_patients_are_counted_apart():
    tally = Tally()
    patient = GOOD | {"path": None, "probabilities": None, "quality": None, "patient": "7"}
    for record in (GOOD, GOOD, patient, patient | {"referable": False, "gradable": False}):
        tally.count(record)
    assert tally.total() == 2
    assert tally.tell().endswith("; 2 patients: 1 referable, 1 not gradable in each eye")
    assert table_row(patient, Layout(80)).split() == [
        "patient",
        "7",
        "2",
        "Moderate",
        "yes",
        "(0.90)",
    ]


@pytest.mark.parametrize(("far", "of", "said"), [(4, 4, False), (3, 6, False), (4, 6, True)])
def test_a_batch_is_doubted_where_most_of_it_is_unlike_what_was_learned_from(far, of, said):
    tally = Tally()
    for k in range(of):
        tally.count(GOOD | {"novelty": 1.2 if k < far else 0.8})
    assert bool(tally.doubt()) == said


def test_a_grade_that_the_referral_contradicts_is_marked():
    doubtful = GOOD | {"predicted": 0, "name": "No DR", "note": "graded 0, yet referable: …"}
    assert "0 No DR (?)" in table_row(doubtful, Layout(80))
    assert "?" not in table_row(GOOD, Layout(80))
