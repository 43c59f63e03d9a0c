"""The findings in README.md: findings.md filled, table and figures, from registers in expected/.

`python -m tools.readme` rewrites them; a test fails while README.md says anything else. Nothing
else of README.md is touched.
"""

import sys
from pathlib import Path

import pandas as pd

from emotion_concepts import claims, figures, plots
from emotion_concepts.models import DEFAULT_MODEL
from emotion_concepts.results import Register, fill, key_of

ROOT = Path(__file__).resolve().parent.parent
FIGURE, SCORECARD = Path("book/_static/summary.png"), Path("book/_static/scorecard.png")
BEGIN, END = "<!-- findings: written by `python -m tools.readme` -->", "<!-- end of findings -->"

SUMMARY = Path(__file__).with_name("findings.md")


def published(root: Path = ROOT) -> list[Register]:
    """Return the registers of the published book on the default model, in reading order."""
    folder = root / "expected" / DEFAULT_MODEL / "full"
    return [Register.load(path) for path in sorted(folder.glob("*.json"))]


def merged(registers: list[Register]) -> Register:
    """Return one register with the entries of all chapters, for prose that quotes several."""
    whole = Register("readme", registers[0].model, "full")
    for register in registers:
        whole.entries |= register.entries
    whole.add("model", whole.model)
    whole.add("paper_pleasure", whole["pc1_pleasure_r"].paper)
    whole.add("paper_arousal", whole["pc2_arousal_r"].paper)
    whole.add("paper_steering", whole["steering_r"].paper)
    whole.add("paper_consistency", whole["consistency"].paper)
    return whole


def findings(registers: list[Register]) -> str:
    """Return the findings as Markdown: what was found, the figure, every claim's verdict."""
    stated = pd.concat([register.claims() for register in registers])
    rows = [f"| {row.claim} | {row.criterion} | {row.verdict} |" for row in stated.itertuples()]
    table = ["| claim | holds if | verdict |", "|---|---|---|", *rows]
    card, figure = (
        f"![{alt}]({path.as_posix()})"
        for path, alt in (
            (SCORECARD, claims.scorecard_alt(scorecard(registers))),
            (FIGURE, ALT),
        )
    )
    told = fill(SUMMARY.read_text(), merged(registers)).strip()
    return "\n\n".join(
        [
            card,
            folded("In words and numbers", f"{told}\n\n{figure}"),
            folded("Every claim, its criterion and its verdict", "\n".join(table)),
        ]
    )


def folded(title: str, text: str) -> str:
    """Return text that a reader of the page opens."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def scorecard(registers: list[Register]) -> pd.DataFrame:
    """Return the ledger's verdicts on the default model and, frozen, on others."""
    return claims.scorecard(claims.with_frozen(registers))


ALT = (
    "Top-1 accuracy of naming one of 171 emotions for probe, TF-IDF and shuffled labels, within "
    "each register and from one register to the other, with 95 percent intervals."
)


def figure(registers: list[Register]) -> bytes:
    """Return the front figure as PNG: the probe beside words and chance."""
    register, rows = registers[0], []
    kinds = {"probe": "probe", "TF-IDF": "baseline", "shuffled labels": "null"}
    for setting in ("literary", "plain", "literary → plain", "plain → literary"):
        for method, kind in kinds.items():
            entry = register[key_of("top1", setting, method)]
            rows.append((setting, method, kind, entry.value, entry.low, entry.high))
    columns = ["setting", "method", "kind", "top1", "low", "high"]
    drawn = plots.accuracy_bars(
        pd.DataFrame(rows, columns=columns),
        value="top1",
        low="low",
        high="high",
        label="method",
        title="Do the vectors name the emotion of an unseen story? Do its words?",
        chance=register["chance"].value,
        xlabel="top 1 of 171",
        note=f"{register.model}, layer {register['layer'].value}; 95 % over topics and emotions",
    )
    return plots.png_bytes(drawn)


def with_findings(readme: str, text: str) -> str:
    """Return the README with its findings replaced."""
    head, rest = readme.split(BEGIN)
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Rewrite the findings and their figures."""
    registers, readme = published(), ROOT / "README.md"
    readme.write_text(with_findings(readme.read_text(), findings(registers)), encoding="utf-8")
    (ROOT / FIGURE).write_bytes(figure(registers))
    drawn = figures.scorecard_figure(
        scorecard(registers),
        title="Which claims hold?",
        note="a row a claim, by chapter; a column a model; the ledger has the reasons",
    )
    (ROOT / SCORECARD).write_bytes(plots.png_bytes(drawn))
    return 0


if __name__ == "__main__":
    sys.exit(main())
