"""The ledger: every claim that the book tests, with its verdict on each model that has results.

``data/claims.yaml`` says what is claimed, by whom, and which verdicts of the chapters decide it.
Criteria and measures stay in the registers, and nothing here is judged by hand: `scorecard` takes
verdicts from registers alone and combines them by one rule, `combined`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pandas as pd

from emotion_concepts.corpus import DATA
from emotion_concepts.errors import BadInput, RegisterError, nearest
from emotion_concepts.frozen import load_frozen
from emotion_concepts.html_views import View, markup_table, measured, numbers_table
from emotion_concepts.look import signed
from emotion_concepts.results import SYMBOLS, Entry, Register, build_dir, paper, short
from emotion_concepts.scenarios import read_entries, read_yaml

NOT_RUN, UNMEASURED = "not run", "not measurable at this scale"

Key = tuple[str, str]  # chapter, key of its register


# --- what is claimed ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What a study by others found on a claim."""

    name: str
    model: str
    address: str
    found: str


@dataclass(frozen=True)
class Claim:
    """One claim, as ``claims.yaml`` has it.

    Attributes
    ----------
    number : str
        The paper's number, or what it shows instead; empty for what it does not test.
    section : str
        Heading of the chapter under which the figure stands.
    verdicts : tuple of (chapter, key)
        Verdicts that decide it; the measure of the first is shown.
    beside : tuple of (chapter, key)
        Verdicts that are shown with it and do not decide.

    Examples
    --------
    >>> claim = load_ledger().claims[0]
    >>> claim.chapter, claim.link
    ('01_vectors', '01_vectors.html#does-it-name-the-emotion-of-an-unseen-story')
    """

    id: str
    claim: str
    source: str
    number: str
    chapter: str
    section: str
    verdicts: tuple[Key, ...]
    beside: tuple[Key, ...]
    controls: str
    elsewhere: tuple[Finding, ...]

    @property
    def link(self) -> str:
        """Address of the section, from the page of any chapter."""
        return f"{self.chapter}.html#{anchor(self.section)}"


@dataclass(frozen=True)
class NotTested:
    """A claim that the book does not reproduce, and why."""

    id: str
    claim: str
    source: str
    why: str
    elsewhere: tuple[Finding, ...]


@dataclass(frozen=True)
class Ledger:
    """All claims, in the order of the chapters (``{stem: title}``)."""

    chapters: dict[str, str]
    claims: tuple[Claim, ...]
    not_tested: tuple[NotTested, ...]


def anchor(heading: str) -> str:
    """Return the id that a page of the book gives to a heading.

    >>> anchor("The user's place and the reply's")
    'the-user-s-place-and-the-reply-s'
    """
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def load_ledger(path: str | Path | None = None) -> Ledger:
    """Read the ledger and check it.

    Parameters
    ----------
    path : str or Path, optional
        A .yaml in the form of the packaged ``data/claims.yaml``.

    Returns
    -------
    Ledger

    Raises
    ------
    BadInput
        For a missing or unknown field, an id that stands twice, an unknown chapter or replication,
        a replication without a web address, or a verdict that two claims use.
    RegisterError
        For a number that ``paper.json`` does not have.

    Examples
    --------
    >>> ledger = load_ledger()
    >>> ledger.claims[0].id, ledger.claims[0].number
    ('directions', '171')
    """
    file, data = read_yaml("claims", DATA / "claims.yaml" if path is None else path)
    chapters, studies = _mapping(file, data, "chapters"), _mapping(file, data, "replications")
    for name, study in studies.items():
        if not isinstance(study, dict) or set(study) != {"name", "model", "address"}:
            raise BadInput(f"{file}, {name}: write name, model and address of a replication")
        if not str(study["address"]).startswith("https://"):
            raise BadInput(f"{file}, {name}: write an address that begins with https://")

    def findings(where: str, written: object) -> tuple[Finding, ...]:
        if not isinstance(written, dict | None):
            raise BadInput(f"{where}: write elsewhere as replication: what it found")
        pairs = (written or {}).items()
        return tuple(Finding(found=str(f), **_known(where, name, studies)) for name, f in pairs)

    claims, used = [], {}
    fields = ("id", "claim", "source", "number?", "chapter", "section", "verdicts", "beside?")
    for where, *words, number, chapter, section, verdicts, beside, controls, elsewhere in _entries(
        file, data, "claims", *fields, "controls", "elsewhere?"
    ):
        _known(where, chapter, chapters)
        keys = [_keys(where, chapter, written, chapters) for written in (verdicts, beside or [])]
        for key in (*keys[0], *keys[1]):
            if key in used:
                raise BadInput(
                    f"{where}: {'/'.join(key)} belongs to {used[key]!r}; name a verdict once"
                )
            used[key] = words[0]
        shown = findings(where, elsewhere)
        claims.append(Claim(*words, _number(number), chapter, section, *keys, controls, shown))
    claims.sort(key=lambda claim: list(chapters).index(claim.chapter))
    entries = _entries(file, data, "not_tested", "id", "claim", "source", "why", "elsewhere?")
    rest = [NotTested(*words, findings(where, found)) for where, *words, found in entries]
    return Ledger(chapters, tuple(claims), tuple(rest))


def _mapping(file: Path, data: dict, key: str) -> dict:
    if not isinstance(data.get(key), dict):
        raise BadInput(f"{file}: {key} must be a mapping of names, as in the packaged claims.yaml")
    return data[key]


def _entries(file: Path, data: dict, key: str, *fields: str) -> Iterator[tuple]:
    """Yield the entries of a list as `read_entries` does, and refuse a field that has no use."""
    known = [field.rstrip("?") for field in fields]
    for number, row in enumerate(read_entries(file, data, key, *fields)):
        for field in data[key][number]:
            _known(row[0], field, known)
        yield row


def _known(where: str, name: object, names: Iterable[str]) -> object:
    """Return what a name stands for in a mapping, or the name itself in a list."""
    if str(name) not in names:
        raise BadInput(f"{where}: {name!r} is unknown; {nearest(str(name), map(str, names))}")
    return names[str(name)] if isinstance(names, dict) else name


def _keys(where: str, chapter: str, written: object, chapters: dict) -> tuple[Key, ...]:
    if not isinstance(written, list):
        raise BadInput(f"{where}: write verdicts as a list, such as [claim_steering]")
    found = []
    for one in written:
        place, _, key = str(one).rpartition("/")
        _known(where, place or chapter, chapters)
        found.append((place or chapter, key))
    return tuple(found)


def _number(written: list[str] | str | None) -> str:
    """Return the paper's numbers, each with what distinguishes its key from the others'."""
    if not isinstance(written, list):
        return "" if written is None else str(written)
    values = [signed(paper(key)["paper"], ",.10g") for key in written]
    if len(written) == 1:
        return values[0]
    words = [key.split("_") for key in written]
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    same = len(list(alike))
    names = (" ".join(word[same:]) for word in words)
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))


# --- what the registers say of it --------------------------------------------------------------


def combined(verdicts: Iterable[str]) -> str:
    """Return the verdict on a claim that several verdicts decide.

    "supported" if all are; what could not be measured is set aside, but keeps the claim from being
    supported in full. Of the rest: "partly" if any is supported or partly so, else "reversed" if
    any is reversed, else "not supported". "not run" if any was not run.

    Raises
    ------
    RegisterError
        If there is no verdict.

    Examples
    --------
    >>> combined(["supported", "not measurable at this scale"])
    'partly'
    >>> combined(["not supported", "reversed"])
    'reversed'
    """
    found = set(verdicts)
    if not found:
        raise RegisterError("no verdict decides this claim; name at least one in the ledger")
    if NOT_RUN in found:
        return NOT_RUN
    if found == {"supported"}:
        return "supported"
    if found == {UNMEASURED}:
        return UNMEASURED
    if found & {"supported", "partly"}:
        return "partly"
    return "reversed" if "reversed" in found else "not supported"


def gather(results: str | Path | None = None) -> list[Register]:
    """Return the registers of a build, and the frozen ones of other models and profiles.

    Parameters
    ----------
    results : str or Path, optional
        Folder of ``<model>/<chapter>.json``, by default that of the current build.

    Raises
    ------
    RegisterError
        If the folder has no results.

    Examples
    --------
    >>> import json
    >>> from tempfile import TemporaryDirectory
    >>> own = Register("05_blackmail", "lab/tiny", "full").head() | {"entries": {}}
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "lab--tiny" / "05_blackmail.json"
    ...     path.parent.mkdir()
    ...     _ = path.write_text(json.dumps(own))
    ...     found = gather(folder)
    >>> found[0].model, len(found) > 1  # the others are frozen ones
    ('lab/tiny', True)
    """
    folder = build_dir() / "results" if results is None else Path(results)
    found = [Register.load(path) for path in sorted(folder.glob("*/*.json"))]
    if not found:
        raise RegisterError(f"there are no results under {folder}; run the chapters first")
    return with_frozen(found)


def with_frozen(registers: Sequence[Register]) -> list[Register]:
    """Return registers and, after them, the frozen ones of other models and profiles.

    >>> found = with_frozen([Register("05_blackmail", "lab/tiny", "full")])
    >>> models = [register.model for register in found if register.chapter == "05_blackmail"]
    >>> models[0], "qwen2.5-coder-0.5b-instruct-q4_k_m" in models
    ('lab/tiny', True)
    """
    known = {_run(register) for register in registers}
    kept = [run.register for chapter in load_ledger().chapters for run in load_frozen(chapter)]
    return [*registers, *(register for register in kept if _run(register) not in known)]


def _run(register: Register) -> tuple[str, str, str]:
    return register.model, register.profile, register.chapter


def uncovered(registers: Iterable[Register], ledger: Ledger | None = None) -> list[str]:
    """Return the verdicts in registers that no claim of the ledger uses, as chapter/key.

    >>> register = Register("02_geometry", "lab/tiny", "full")
    >>> about = {"claim": "Like is near like.", "criterion": "near above opposite"}
    >>> _ = register.verdict("claim_pairs", "supported", **about)
    >>> _ = register.verdict("claim_triples", "supported", **about)
    >>> uncovered([register])
    ['02_geometry/claim_triples']
    """
    claims = (ledger or load_ledger()).claims
    used = {key for claim in claims for key in (*claim.verdicts, *claim.beside)}
    stated = {
        (register.chapter, key)
        for register in registers
        for key, entry in register.entries.items()
        if entry.claim
    }
    return sorted("/".join(key) for key in stated - used)


def scorecard(registers: Iterable[Register], ledger: Ledger | None = None) -> pd.DataFrame:
    """Return what holds: one row a claim and model, claims in the order of the chapters.

    A verdict that no chapter of this model has is "not run", and so is a claim that it decides.
    "reversed" and "not measurable at this scale" come from the chapters: a register holds the words
    of a criterion and not its threshold, so that they could not be told from the measure alone.

    Parameters
    ----------
    registers : iterable of Register
        Of one or several models; `gather` finds them. Results of two profiles of one model are two
        columns, since they are never mixed.

    Returns
    -------
    DataFrame
        With columns id, claim, chapter, title (of the chapter), source, number (the paper's), model
        (a name short enough for a figure, with the profile where it takes that to tell two apart),
        verdict, varies (whether one that decides came out differently with another seed, which is
        known of published runs), parts (the verdicts that decide, where there are several) and
        beside (those that do not): both ``{claim: verdict}``; criterion, measure (key), what (its
        method), value, low, high, n, and link (to the figure). The numbers are of the measure of
        the first verdict, missing where the claim was not run.

    Raises
    ------
    RegisterError
        If there are no registers, if two are of one model, profile and chapter, or if the ledger
        names a key that no register of its chapter has as a verdict.

    Examples
    --------
    >>> from dataclasses import replace
    >>> ledger = load_ledger()
    >>> ledger = replace(ledger, claims=tuple(c for c in ledger.claims if c.id == "pairs"))
    >>> register = Register("02_geometry", "lab/tiny", "full")
    >>> about = {"claim": "Like is near like.", "criterion": "near above opposite"}
    >>> _ = register.verdict("claim_pairs", "supported", **about)
    >>> scorecard([register], ledger)[["id", "model", "verdict"]].values.tolist()
    [['pairs', 'tiny', 'supported']]
    """
    ledger = ledger or load_ledger()
    runs: dict[tuple[str, str], dict[str, Register]] = {}
    for register in registers:
        *run, chapter = _run(register)
        if chapter in runs.setdefault(tuple(run), {}):
            raise RegisterError(
                f"{chapter} of {register.model}, profile {register.profile}, is given twice"
            )
        runs[tuple(run)][chapter] = register
    if not runs:
        raise RegisterError("there are no registers to take verdicts from; run a chapter first")
    _check_keys(ledger, list(runs.values()))
    rows = [
        {
            "id": claim.id,
            "claim": claim.claim,
            "chapter": claim.chapter,
            "title": ledger.chapters[claim.chapter],
            "source": claim.source,
            "number": claim.number,
            "model": label,
            **_verdict(claim, chapters),
            "link": claim.link,
        }
        for claim in ledger.claims
        for label, chapters in zip(_labels(list(runs)), runs.values(), strict=True)
    ]
    return pd.DataFrame(rows)


def _labels(runs: Sequence[tuple[str, str]]) -> list[str]:
    names = [short(model) for model, _ in runs]
    return [
        name if names.count(name) == 1 else f"{model}, {profile}"
        for name, (model, profile) in zip(names, runs, strict=True)
    ]


def _check_keys(ledger: Ledger, runs: Sequence[dict[str, Register]]) -> None:
    """Raise where no register of a chapter has a key; one that was frozen may lack a later one."""
    for claim in ledger.claims:
        for chapter, key in (*claim.verdicts, *claim.beside):
            own = [run[chapter] for run in runs if chapter in run]
            stated = {name for one in own for name, entry in one.entries.items() if entry.claim}
            if own and key not in stated:
                raise RegisterError(
                    f"{claim.id}: {key!r} is no verdict of {chapter}; {nearest(key, stated)}"
                )


def _verdict(claim: Claim, chapters: dict[str, Register]) -> dict:
    """Return what one model's registers say of a claim."""

    def entries(keys: Iterable[Key]) -> list[Entry | None]:
        return [
            chapters[chapter].entries.get(key) if chapter in chapters else None
            for chapter, key in keys
        ]

    deciding = entries(claim.verdicts)
    verdict = combined(NOT_RUN if entry is None else entry.value for entry in deciding)
    run = [entry for entry in deciding if entry]
    measure = run[0].measure if verdict != NOT_RUN else ""
    m = chapters[claim.verdicts[0][0]][measure] if measure else Entry(None)
    return {
        "verdict": verdict,
        "varies": any(len(entry.allowed or ()) > 1 for entry in run),
        "parts": {entry.claim: entry.value for entry in run} if len(deciding) > 1 else {},
        "beside": {entry.claim: entry.value for entry in entries(claim.beside) if entry},
        "criterion": "; ".join(dict.fromkeys(entry.criterion for entry in run)),
        "measure": measure,
        "what": m.method,
        "value": m.value,
        "low": m.low,
        "high": m.high,
        "n": m.n,
    }


# --- how it is shown ---------------------------------------------------------------------------


def scorecard_alt(table: pd.DataFrame) -> str:
    """Return alt text for `figures.scorecard_figure`: how many claims have which verdict.

    >>> table = pd.DataFrame({"id": ["pairs", "clusters"], "model": "tiny", "varies": False})
    >>> table["verdict"] = ["supported", "not supported"]
    >>> scorecard_alt(table).partition(": ")[2]
    'on tiny 1 supported, 1 not supported.'
    """
    told = []
    for model, rows in table.groupby("model", sort=False):
        counts = rows.verdict.value_counts()
        named = ", ".join(f"{counts[v]} {v}" for v in SYMBOLS if v in counts)
        moved = (
            f" ({some} of them otherwise with another seed)" if (some := rows.varies.sum()) else ""
        )
        told.append(f"on {model} {named}{moved}")
    n = table.id.nunique()
    return f"Scorecard of {n} claims, a row each, by chapter, a column a model: {'; '.join(told)}."


def scorecard_view(table: pd.DataFrame) -> View:
    """Return the scorecard as tables, one a chapter; each verdict links to its figure.

    Parameters
    ----------
    table : DataFrame
        As from `scorecard`.

    Examples
    --------
    >>> row = {"title": "Geometry", "id": "pairs", "claim": "Like is near like", "source": "Fig. 5"}
    >>> row |= {"number": "", "criterion": "", "model": "tiny", "verdict": "not run"}
    >>> print(scorecard_view(pd.DataFrame([row])).text)
    Geometry
    Like is near like (Fig. 5): tiny: not run
    """
    parts = [_chapter_view(title, rows) for title, rows in table.groupby("title", sort=False)]
    return View("".join(part.html for part in parts), "\n\n".join(part.text for part in parts))


def _chapter_view(title: str, table: pd.DataFrame) -> View:
    rows, lines = [], [title]
    for _, one in table.groupby("id", sort=False):
        first = one.iloc[0]
        criteria = [text for text in one.criterion if text]
        holds = f"holds if: {criteria[0]}" if criteria else "not run"
        head = "".join(f"<small>{html.escape(text)}</small>" for text in (first.source, holds))
        cells = [_cell(row) for row in one.itertuples()]
        rows.append((html.escape(first.claim) + head, html.escape(first.number or "—"), *cells))
        told = ", ".join(f"{row.model}: {row.verdict}" for row in one.itertuples())
        lines.append(f"{first.claim} ({first.source}): {told}")
    head = {"claim": "", "the paper": ""} | dict.fromkeys(table.model.unique(), "")
    return View(markup_table(title, head, rows), "\n".join(lines))


def _cell(row: tuple) -> str:
    shown = f'<span aria-hidden="true">{SYMBOLS[row.verdict]}</span> {row.verdict}'
    if row.verdict == NOT_RUN:
        return shown
    small = []
    if row.measure:
        n = f", n\u00a0=\u00a0{int(row.n):,}" if pd.notna(row.n) else ""
        interval = measured(row.value, row.low, row.high).replace(", ", ",\u00a0")  # no break
        small = [row.what, interval + n]
    small += [f"{claim}: {verdict}" for claim, verdict in row.parts.items()]
    small += [f"{claim} (beside it): {verdict}" for claim, verdict in row.beside.items()]
    below = "".join(f"<small>{html.escape(text)}</small>" for text in small)
    return f'<a href="{html.escape(row.link)}">{shown}</a>{below}'


def elsewhere_view(ledger: Ledger) -> View:
    """Return what replications found, claim by claim, with their addresses.

    >>> found = Finding("lab/study", "Qwen3-8B", "https://example.org", "Opposites lie apart.")
    >>> claim = NotTested("pairs", "Like is near like", "Fig. 5", "no data", (found,))
    >>> print(elsewhere_view(Ledger({}, (), (claim,))).text)
    What replications found
    Like is near like: Opposites lie apart. (lab/study, https://example.org)
    """
    rows, lines = [], ["What replications found"]
    for claim in (*ledger.claims, *ledger.not_tested):
        for number, finding in enumerate(claim.elsewhere):
            link = f'<a href="{html.escape(finding.address)}">{html.escape(finding.name)}</a>'
            study = f"{link}<small>{html.escape(finding.model)}</small>"
            named = html.escape(claim.claim)
            if number:  # a ditto mark, read aloud as what it stands for
                named = f'<span role="img" aria-label="{named}">″</span>'
            rows.append((named, study, html.escape(finding.found)))
            lines.append(f"{claim.claim}: {finding.found} ({finding.name}, {finding.address})")
    head = {"claim": "", "study and model": "", "what it found": ""}
    return View(markup_table(lines[0], head, rows), "\n".join(lines))


def controls_view(ledger: Ledger) -> View:
    """Return what a test of each claim needs beside the claim itself.

    >>> view = controls_view(load_ledger())
    >>> view.text.splitlines()[1].partition(": needs ")[2]
    'topics that were held out, a second manner of writing, shuffled labels'
    """
    rows = pd.DataFrame([(c.claim, c.controls) for c in ledger.claims], columns=["claim", "needs"])
    return numbers_table(rows, caption="What a test of each claim has to hold against")


def not_tested_view(ledger: Ledger) -> View:
    """Return the claims that the book does not reproduce, and why.

    >>> claim = NotTested("pairs", "Like is near like", "Fig. 5", "no data", ())
    >>> print(not_tested_view(Ledger({}, (), (claim,))).text)
    What is not reproduced, and why
    Like is near like: source Fig. 5, why it is not tested no data
    """
    rows = [(c.claim, c.source, c.why) for c in ledger.not_tested]
    table = pd.DataFrame(rows, columns=["claim", "source", "why it is not tested"])
    return numbers_table(table, caption="What is not reproduced, and why")
