"""A record -> a list of every figure in it by name, as CSV, limits and the terminal take it."""

from collections.abc import Iterator, Mapping
from typing import Any

from dr_cli.scoring import honesty
from dr_cli.scoring.comparison import TESTS
from dr_cli.scoring.metrics import FIGURES
from dr_cli.scoring.predictions import TARGETS

APART = (*TARGETS, "per_patient")  # of which a record tells more than a list of figures holds
_BRIEF = ("accuracy", "qwk", "referable")  # of the images that do not leak

Row = tuple[str, float | None, list[float] | None]  # name, value, 95% interval


def flatten(record: Mapping[str, Any]) -> list[Row]:
    """Every figure of a record: `FIGURES`, those before temperature, of the gradable images, of
    those that do not leak, the baselines, of each group (`by.camera=A.qwk`) and comparison
    (`against.NAME.qwk`, with `.p`)."""
    top = dict.fromkeys(name.partition(".")[0] for name in FIGURES)
    calibration, refused = record["calibration"], record["ungradable"] or {}
    without, errors = refused.get("without"), calibration.get("ci95") or {}
    found = [
        *_rows("", {name: record[name] for name in top}),
        *(row for name in TARGETS for row in _screening_rows(name, record[name])),
        *_plain("per_patient", record["per_patient"] or {}, "n"),
        *_rows("per_patient", record["per_patient"] or {}),
        *((f"calibration.{e}", calibration[e], errors.get(e)) for e in honesty.ERRORS),
        *_plain("calibration.before", calibration["before"] or {}, "ece", "brier", "nll"),
        *_plain("ungradable", refused, "share"),
        *_rows("ungradable.without", {k: without[k] for k in ("accuracy", "qwk") if without}),
    ]
    clean = record.get("without_leaks") or {}
    found += _plain("without_leaks", clean, "n")
    found += _rows("without_leaks", {k: clean[k] for k in _BRIEF if k in clean})
    for name, pair in record["baselines"].items():
        found += _plain(f"baseline.{name}", pair or {}, "accuracy", "qwk")
        found += _rows(f"baseline.{name}.less", (pair or {}).get("difference") or {})
    by = record["subgroups"] or {"groups": []}
    for group in by["groups"]:
        value = "not known" if group["value"] is None else group["value"]
        where = f"by.{by['column']}={value}"
        found += [*_plain(where, group, "n"), *_rows(where, group)]
    for kind in ("folds", "seeds"):
        for name, spread in ((record.get(kind) or {}).get("sd") or {}).items():
            found.append((f"{kind}.mean.{name}", record[kind]["mean"][name], None))
            found.append((f"{kind}.sd.{name}", spread, None))
    pairs = record.get("against", [])
    for pair in pairs:
        first = "" if pair["a"] == pairs[0]["a"] else f"{pair['a']}."
        for test in TESTS:
            where, told = f"{first}against.{pair['b']}.{test}", pair[test] or {}
            if "difference" in told:
                found.append((where, told["difference"], told["ci95"]))
            found += _plain(where, told, "p", "p_adjusted", "p_holm")
    return found


def _rows(where: str, part: Mapping[str, Any]) -> Iterator[Row]:
    """Every figure at any depth: a dictionary that has a value and an interval."""
    for key, inner in part.items():
        name = f"{where}.{key}" if where else key
        if isinstance(inner, Mapping) and {"value", "ci95"} <= inner.keys():
            yield name, inner["value"], inner["ci95"]
        elif isinstance(inner, Mapping):
            yield from _rows(name, inner)


def _screening_rows(name: str, target: Mapping[str, Any]) -> list[Row]:
    """What of a target is no figure of its own: counts, predictive values at a prevalence, ECE."""
    rows = _plain(f"{name}.counts", target["counts"] or {}, "tp", "fp", "fn", "tn")
    rows += _plain(f"{name}.calibration", target["calibration"] or {}, "ece")
    for at in target["at_prevalence"]:
        rows += _rows(f"{name}.at_prevalence={at['prevalence']:g}", at)
    return rows


def _plain(where: str, part: Mapping[str, Any], *names: str) -> list[Row]:
    """Numbers that have no interval."""
    return [(f"{where}.{name}", part[name], None) for name in names if name in part]
