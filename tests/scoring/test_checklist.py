"""The checklist: every item once, and nothing said to be there that is not."""

import re

from dr_cli.scoring.checklist import AUTHOR, ITEMS, check_record, tell
from dr_cli.scoring.record import Context, Scoring, build_record
from tests.builders.predictions import binary, table


def by_item(record):
    return {row["item"]: row for row in check_record(record)}


def test_every_item_of_the_statement_stands_there_once():
    numbers = [item.number for item in ITEMS]
    assert len(set(numbers)) == len(numbers) == 48
    assert {int(re.match(r"\d+", number)[0]) for number in numbers} == set(range(1, 41))
    assert [n for n in numbers if not n.isdigit()] == [
        "15a", "15b", "15c", "15d", "16a", "16b", "16c", "17a", "17b", "26a", "26b", "40a", "40b",
    ]  # fmt: skip


def test_what_a_record_holds_is_named_and_what_is_null_is_said_to_be_missing():
    rows = table(60).assign(camera=["A", "B"] * 60, gradable=1)
    record = build_record(rows, Context("r", "d"), scoring=Scoring(20, by="camera"))
    found = by_item(record)
    assert found["30"]["answered"] == found["31"]["answered"] == "yes"
    assert "referable.counts" in found["30"]["where"]
    assert found["21"]["where"] == ["subgroups"]
    assert found["24"]["answered"] == "not here"  # no flow is known of a table alone
    assert "not in this record: flow" in tell(found["24"])
    assert found["6"]["answered"] == "no"
    assert tell(found["6"]) == AUTHOR
    assert found["7"]["author"] is not None
    assert found["40b"]["where"] == ["RUN/predictions-test.csv"]
    without = by_item(build_record(rows, Context("r", "d"), scoring=Scoring(0)))
    assert without["21"]["answered"] == "not here"
    assert without["23"]["where"] == []


def test_a_table_of_a_program_that_tells_referable_alone_answers_less():
    found = by_item(build_record(binary(table(60)), Context(None, "d"), scoring=Scoring(0)))
    assert found["30"]["answered"] == "in part"
    assert set(found["30"]["missing"]) == {"confusion", "sight_threatening.counts"}
    assert found["15a"]["answered"] == "not here"  # it is no run of ours
    assert found["40b"]["answered"] == "not here"


def test_every_place_named_is_a_field_of_a_record():
    record = build_record(table(30), Context("r", "d"), scoring=Scoring(0))
    for item in ITEMS:
        for where in item.where:
            if not where.startswith("RUN/"):
                part = record
                for key in where.split("."):
                    assert key in part, where
                    part = part[key]
