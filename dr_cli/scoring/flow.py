"""How many photographs and patients were there, and why not all of them are scored: the flow that
STARD and CLAIM ask for."""

from typing import TYPE_CHECKING, Any

from dr_cli.labels.layouts import SPLITS

if TYPE_CHECKING:
    import pandas as pd

Flow = list[dict[str, Any]]


def describe_flow(labels: "pd.DataFrame") -> Flow:
    """Rows -> found -> readable -> gradable -> used, of all rows and of each split there is.

    labels: as splits.csv holds them. `split`: "all", "train", "val", "test", or None: left out
    before splits were drawn. Each step, and each reason in `left_out` (the most frequent first),
    counts {"images", "patients"}; patients is None where not one is known, and an image without a
    patient counts as one. `duplicates`: used images that have a double in the data set, and groups
    of them; None where doubles were not looked for.
    """
    left_out_of = labels.get("left_out_of")
    split = labels["split"] if left_out_of is None else labels["split"].fillna(left_out_of)
    parts = {"all": labels} | {name: labels[split == name] for name in SPLITS}
    parts |= {None: labels[split.isna()]}  # type: ignore[dict-item]
    return [{"split": name, **_follow(part)} for name, part in parts.items() if len(part)]


def _follow(rows: "pd.DataFrame") -> dict[str, Any]:
    from dr_cli.labels.columns import UNGRADABLE
    from dr_cli.labels.reading import MISSING, UNREADABLE

    lost = {"found": MISSING, "readable": UNREADABLE, "gradable": UNGRADABLE}
    reason = rows["reason"].astype(object).fillna("").str.replace(r":.*", "", regex=True)
    left, steps = rows, {"rows": _count(rows)}
    for step, why in lost.items():  # `used` loses the other reasons
        left = left[~reason[left.index].str.startswith(why)]
        steps[step] = _count(left)
    used = rows[reason == ""]
    reasons = [why for why in reason.value_counts().index if why]
    return {
        **steps,
        "used": _count(used),
        "left_out": [{"reason": why, **_count(rows[reason == why])} for why in reasons],
        "duplicates": _count_doubles(used),
    }


def _count(rows: "pd.DataFrame") -> dict[str, int | None]:
    unknown = int(rows["patient"].isna().sum())
    known = int(rows["patient"].nunique())
    return {"images": len(rows), "patients": known + unknown if known or not len(rows) else None}


def _count_doubles(used: "pd.DataFrame") -> dict[str, int] | None:
    if "duplicates" not in used:
        return None
    groups = used["duplicates"].dropna()
    return {"images": len(groups), "groups": int(groups.nunique())}
