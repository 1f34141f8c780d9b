"""What the quality gate tells apart: photographs untouched and degraded, and what is no photograph.

    python examples/benchmarks/quality.py FOLDER... [--others FOLDER...] [--sheets FOLDER]

FOLDERs hold photographs of the fundus; of each folder's files half, drawn by --seed's parity of
their order, was used to fit the gate (`fit_quality.py`), and the other half is reported here.
Prints the AUC of `quality` by degradation (untouched against degraded to where it cannot be
graded), the share refused of untouched photographs, drawn eyes and thumbnails, the share of
pictures caught that are no fundus photograph (drawn here, those that installed packages ship, and
those of --others), and milliseconds a photograph beyond decoding. --sheets writes contact sheets.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from degrade import DEGRADATIONS, Picture, draw_eye, list_half, load
from not_fundus import DRAWN, disguise, shipped
from PIL import Image, ImageDraw

from dr_cli.photographs.decoding import UnreadableImage, decode
from dr_cli.photographs.field import find_field
from dr_cli.photographs.quality import Judgement, judge

Judged = list[tuple[Picture, Judgement]]


def judge_all(pictures: Iterator[Picture]) -> Judged:
    """Each as a thumbnail, and what the gate says of it."""
    found = []
    for picture in pictures:
        said = judge(picture, find_field(picture))
        picture.thumbnail((150, 150))
        found.append((picture, said))
    return found


def area_under_curve(good: list[float], bad: list[float]) -> float:
    """The chance that a good one's quality is above a bad one's; ties count half."""
    above = np.subtract.outer(np.array(good), np.array(bad))
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def qualities(judged: Judged) -> list[float]:
    return [said.quality for _, said in judged]


def refused(judged: Judged) -> str:
    count = sum(not said.gradable for _, said in judged)
    return f"{count:5,} of {len(judged):5,} {100 * count / max(1, len(judged)):6.1f}%"


def spread(judged: Judged) -> str:
    found = np.quantile(qualities(judged), (0.05, 0.25, 0.5, 0.75, 0.95))
    return " ".join(f"{q:.2f}" for q in found)


def untouched(file: Path, at_least: int = 224) -> Picture:
    """As `dr predict` decodes it."""
    return decode(file.parent, file.name, at_least).picture


def read_all(files: list[Path]) -> Iterator[Picture]:
    for file in files:
        try:
            yield untouched(file)
        except UnreadableImage as problem:
            print(f"  left out: {problem}")


def report_degradations(files: list[Path], seed: int, sheet: "Sheet") -> None:
    """AUC, refused, and called by the right reason, by degradation; mild ones for comparison."""
    rng = np.random.default_rng([seed, 1])
    good = qualities(judge_all(read_all(files)))
    print("\ndegraded              AUC   refused           right reason   mildly: refused, quality")
    everything: list[float] = []
    for name, (degrade, reason) in DEGRADATIONS.items():
        bad = judge_all(degrade(load(file, rng), rng.uniform(1, 1.3), rng) for file in files)
        some = files[::4]
        mild = judge_all(degrade(load(file, rng), rng.uniform(0.1, 0.4), rng) for file in some)
        right = [said.reason == reason for _, said in bad if not said.gradable]
        everything += qualities(bad)
        shown = f"{area_under_curve(good, qualities(bad)):.3f} {refused(bad)}"
        whole = name in ("colours", "half black")  # have no milder form
        milder = "" if whole else f"{refused(mild)}   {np.median(qualities(mild)):.2f}"
        print(f"  {name:17} {shown} {100 * np.mean(right or [0]):8.0f}%     {milder}")
        sheet.write(f"kept-{name}", [one for one in bad if one[1].gradable])
    print(f"  {'all together':17} {area_under_curve(good, everything):.3f}")


def report_untouched(sets: dict[str, list[Path]], seed: int, sheet: "Sheet") -> None:
    print("\nuntouched                 refused            good  quality at 5 25 50 75 95%")
    rng = np.random.default_rng([seed, 2])
    judged = {name: judge_all(read_all(files)) for name, files in sets.items()}
    everyone = [file for files in sets.values() for file in files]
    for side in (28, 64, 128):
        small = (_shrink(untouched(file), side) for file in everyone[::3])
        judged[f"thumbnails, {side} px"] = judge_all(small)
    judged["drawn eyes"] = judge_all(draw_eye(k, rng) for k in range(10_000, 10_300))
    for name, each in judged.items():
        good = 100 * np.mean([said.verdict == "good" for _, said in each])
        print(f"  {name:22} {refused(each)} {good:5.0f}%  {spread(each)}")
        sheet.write(f"refused-{name}", [one for one in each if not one[1].gradable])
        sheet.write(f"lowest-{name}", sorted(each, key=lambda one: one[1].quality)[:48])


def _shrink(picture: Picture, side: int) -> Picture:
    picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    return picture


def report_others(folders: list[Path], seed: int, sheet: "Sheet") -> None:
    print("\nno fundus photograph      refused            reason is that")
    rng = np.random.default_rng([seed, 3])
    judged = {kind: judge_all(draw(rng) for _ in range(60)) for kind, draw in DRAWN.items()}
    judged["shipped by packages"] = judge_all(read_all(shipped()))
    for folder in folders:
        half = list_half(folder, 1)
        judged[folder.name] = judge_all(read_all(half))
        judged[f"{folder.name}, disguised"] = judge_all(disguise(p, rng) for p in read_all(half))
    every = [one for each in judged.values() for one in each]
    for name, each in (*judged.items(), ("all together", every)):
        right = [said.reason == "not a fundus photograph" for _, said in each if not said.gradable]
        print(f"  {name:22} {refused(each)} {100 * np.mean(right or [0]):7.0f}%")
    sheet.write("kept-others", [one for one in every if one[1].gradable])


def report_time(files: list[Path]) -> None:
    """Processor time on one thread, the median of several photographs of the first set."""
    seconds: dict[str, list[float]] = {"finding the field": [], "judging": []}
    for picture in read_all(files[:40]):
        start = time.thread_time()
        found = find_field(picture)
        middle = time.thread_time()
        judge(picture, found)
        seconds["finding the field"].append(middle - start)
        seconds["judging"].append(time.thread_time() - middle)
    said = ", ".join(f"{name} {1000 * np.median(each):.1f}" for name, each in seconds.items())
    print(f"\nmilliseconds a photograph beyond decoding: {said}")


class Sheet:
    """Writes contact sheets, or, without a folder, does nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def write(self, name: str, judged: Judged) -> None:
        if self.folder is None or not judged:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        shown = judged[:64]
        sheet = Image.new("RGB", (8 * 154, -(-len(shown) // 8) * 168), (40, 40, 60))
        draw = ImageDraw.Draw(sheet)
        for number, (picture, said) in enumerate(shown):
            x, y = number % 8 * 154, number // 8 * 168
            sheet.paste(picture, (x, y))
            draw.text((x + 2, y + 153), f"{said.quality:.2f} {said.reason}", (255, 255, 255))
        sheet.save(self.folder / f"{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--others", nargs="*", type=Path, default=[])
    parser.add_argument("--sheets", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="of the reported half: each, each 2nd")
    args = parser.parse_args()
    sheet = Sheet(args.sheets)
    sets = {folder.name: list_half(folder, 1)[:: args.every] for folder in args.folders}
    print(", ".join(f"{name}: {len(files):,} photographs" for name, files in sets.items()))
    report_untouched(sets, args.seed, sheet)
    report_degradations([f for files in sets.values() for f in files][::2], args.seed, sheet)
    report_others(args.others, args.seed, sheet)
    report_time(next(iter(sets.values())))


if __name__ == "__main__":
    main()
