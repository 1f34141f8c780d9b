"""From the rows of the labels to the images that are scored, counted at every step."""

import pandas as pd

from dr_cli.scoring.flow import describe_flow


def labels(*rows):
    """A row: patient, split, reason, left_out_of, duplicates."""
    columns = ("patient", "split", "reason", "left_out_of", "duplicates")
    return pd.DataFrame(rows, columns=columns).assign(path="x")


TABLE = labels(
    ("a", "train", None, None, 0),
    ("a", None, "unreadable: cut short", "train", None),
    ("b", "test", None, None, 0),
    ("b", None, "unreadable: no picture", "test", None),
    ("c", None, "image missing", "test", None),
    ("c", None, "ungradable (grade 5)", "test", None),
    ("d", None, "named twice", "test", None),
    (None, None, "image missing", None, None),
)


def count(images, patients):
    return {"images": images, "patients": patients}


def test_each_step_and_each_reason_is_counted_by_split_in_images_and_patients():
    flow = {part["split"]: part for part in describe_flow(TABLE)}
    assert list(flow) == ["all", "train", "test", None]
    assert flow["test"] == {
        "split": "test",
        "rows": count(5, 3),
        "found": count(4, 3),
        "readable": count(3, 3),
        "gradable": count(2, 2),
        "used": count(1, 1),
        "left_out": [
            {"reason": "unreadable", **count(1, 1)},
            {"reason": "image missing", **count(1, 1)},
            {"reason": "ungradable (grade 5)", **count(1, 1)},
            {"reason": "named twice", **count(1, 1)},
        ],
        "duplicates": {"images": 1, "groups": 1},
    }
    assert flow["all"]["rows"] == count(8, 5)  # who has no patient counts as one
    assert flow["all"]["used"] == count(2, 2)
    assert flow["all"]["duplicates"] == {"images": 2, "groups": 1}
    assert flow[None]["rows"] == count(1, None)


def test_a_run_of_before_knows_neither_doubles_nor_whose_split_was_left():
    old = TABLE.drop(columns=["left_out_of", "duplicates"])
    flow = {part["split"]: part for part in describe_flow(old)}
    assert flow["test"]["rows"] == flow["test"]["used"] == count(1, 1)
    assert flow[None]["rows"] == count(6, 5)
    assert flow["test"]["duplicates"] is None
