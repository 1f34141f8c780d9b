"""A record as rows: every figure, by name, in order."""

from dr_cli.grades import Calibration
from dr_cli.scoring.comparison import compare
from dr_cli.scoring.flat import flatten
from dr_cli.scoring.metrics import FIGURES
from dr_cli.scoring.record import Scoring, build_record
from tests.builders.predictions import HEADLINE, table

WARM = Calibration(temperature=1.5)


def test_a_record_as_rows_names_every_figure_once_and_in_order():
    rows = table(30).assign(gradable=lambda t: t.index % 5 > 0, site=["a", None, "a"] * 20)
    record = build_record(rows, calibration=WARM, scoring=Scoring(50, by="site"))
    others = [("b", rows), ("c", rows.assign(predicted=0))]
    record["against"] = compare([("a", rows), *others], bootstrap=50)
    found = flatten(record)
    rate = ("auc", "sensitivity", "specificity")
    headline = [
        *HEADLINE,
        *(f"{target}.{name}" for target in ("referable", "sight_threatening") for name in rate),
    ]
    alarm = ("ppv", "npv", "likelihood_ratio_positive", "likelihood_ratio_negative")
    judged = ("slope", "intercept", "observed_expected")
    told_of = [*rate, *alarm, *(f"calibration.{name}" for name in judged)]
    at = [f"at_prevalence={share}.{name}" for share in (0.05, 0.1, 0.2) for name in alarm[:2]]
    apart = [*(f"counts.{name}" for name in ("tp", "fp", "fn", "tn")), "calibration.ece", *at]
    errors = ("ece", "brier", "nll")
    tests = ("qwk", "referable_auc", "mcnemar_referable", "mcnemar_grade")
    targets = ("referable", "sight_threatening")
    assert [name for name, _, _ in found] == [
        *HEADLINE,
        *(f"{target}.{name}" for target in targets for name in told_of),
        *(f"{target}.{name}" for target in targets for name in apart),
        *(f"per_patient.{name}" for name in ("n", *headline)),
        *(f"calibration.{name}" for name in errors),
        *(f"calibration.before.{name}" for name in errors),
        *("ungradable.share", "ungradable.without.accuracy", "ungradable.without.qwk"),
        *("baseline.majority.accuracy", "baseline.majority.qwk"),
        *(f"by.site=a.{name}" for name in ("n", *headline)),
        *(f"by.site=not known.{name}" for name in ("n", *headline)),
        *(f"by.site=not known.difference.{name}" for name in headline),
        *(
            f"{pair}.{test}{end}"
            for pair in ("against.b", "against.c", "b.against.c")
            for test in tests
            for end in ("", ".p", ".p_adjusted", ".p_holm")
            if end or not test.startswith("mcnemar")
        ),
    ]
    told = {name: (value, interval) for name, value, interval in found}
    assert told["referable.auc"] == tuple(record["referable"]["auc"].values())
    assert told["calibration.before.nll"] == (record["calibration"]["before"]["nll"], None)
    assert told["ungradable.without.qwk"][0] == record["ungradable"]["without"]["qwk"]["value"]
    assert told["by.site=a.n"] == (40, None)
    last = record["against"][-1]["qwk"]
    assert told["b.against.c.qwk"] == (last["difference"], last["ci95"])
    assert set(FIGURES) < set(told)
