"""How many photographs and patients were there, and why not all of them are scored: the flow that
STARD and CLAIM ask for."""

from collections.abc import Sequence
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
    split = find_split(labels)
    parts = {"all": labels} | {name: labels[split == name] for name in SPLITS}
    parts |= {None: labels[split.isna()]}  # type: ignore[dict-item]
    return [{"split": name, **_follow(part)} for name, part in parts.items() if len(part)]


def count_failed(labels: "pd.DataFrame", splits: Sequence[str]) -> int:
    """Images of these splits that are missing or cannot be read, and so are in no figure; of all
    three splits, those that were left out before splits were drawn, too."""
    from dr_cli.labels.reading import MISSING, UNREADABLE

    lost = labels["reason"].astype(object).fillna("").str.startswith((MISSING, UNREADABLE))
    split = find_split(labels)
    asked = split.isin(splits) | (split.isna() & (set(splits) == set(SPLITS)))
    return int((lost & asked).sum())


def find_split(labels: "pd.DataFrame") -> "pd.Series":
    """Each row's split, or for one left out that which the data set names; missing without."""
    if "left_out_of" not in labels:
        return labels["split"]
    return labels["split"].where(labels["split"].notna(), labels["left_out_of"])


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
