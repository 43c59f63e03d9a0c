"""The ledger: what it must say of each claim, and verdicts that come from registers alone."""

import json
import re
import subprocess
import sys
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.patches import Rectangle

from emotion_concepts import claims, figures, plots
from emotion_concepts.errors import BadInput, RegisterError
from emotion_concepts.frozen import load_frozen
from emotion_concepts.models import DEFAULT_MODEL
from emotion_concepts.results import VERDICTS, Register, short
from emotion_concepts.stats import Estimate

ROOT = Path(__file__).resolve().parent.parent
PAPER = json.loads((files("emotion_concepts") / "data/paper.json").read_text())["reference"]
RAW = yaml.safe_load((files("emotion_concepts") / "data/claims.yaml").read_text())


@pytest.fixture(scope="module")
def ledger():
    return claims.load_ledger()


@pytest.fixture(scope="module")
def published():
    paths = sorted((ROOT / "expected").glob("*/full/*.json"))
    return [Register.load(path) for path in paths]


@pytest.fixture(scope="module")
def table(published):
    return claims.scorecard(claims.with_frozen(published))


@pytest.fixture
def small(tmp_path):
    """Write and read a ledger of one claim, changed as a test wants it."""

    def load(change=lambda data: None):
        data = {
            "chapters": {"01_a": "A first chapter", "02_b": "A second one"},
            "replications": {"peer": {"name": "p/q", "model": "M", "address": "https://p.org"}},
            "claims": [
                {
                    "id": "one",
                    "claim": "One & all holds",
                    "source": "Fig. 8",
                    "number": ["pc1_pleasure_r"],
                    "chapter": "01_a",
                    "section": "What's seen?",
                    "verdicts": ["claim_x", "02_b/claim_y"],
                    "beside": ["claim_z"],
                    "controls": "a control",
                    "elsewhere": {"peer": "It does not."},
                }
            ],
            "not_tested": [{"id": "n", "claim": "C <b>", "source": "Fig. 1", "why": "no data"}],
        }
        change(data)
        path = tmp_path / "claims.yaml"
        path.write_text(yaml.safe_dump(data))
        return claims.load_ledger(path)

    return load


def register(chapter, verdicts, model="org/tiny", profile="full"):
    made = Register(chapter, model, profile)
    made.add("r", Estimate(0.5, 0.25, 0.75, 45, 0.01), method="r of a thing")
    for key, verdict in verdicts.items():
        made.verdict(key, verdict, claim=f"It {key[-1]}.", criterion=f"{key} > 0", measure="r")
    return made


def both(x="supported", y="supported", z="not supported", **about):
    first = register("01_a", {"claim_x": x, "claim_z": z}, **about)
    return [first, register("02_b", {"claim_y": y}, **about)]


# --- the packaged ledger -------------------------------------------------------------------------


def test_every_verdict_of_the_published_book_belongs_to_one_claim(ledger, published):
    assert claims.uncovered(published, ledger) == []
    used = [key for c in ledger.claims for key in (*c.verdicts, *c.beside)]
    stated = [(r.chapter, k) for r in published for k, entry in r.entries.items() if entry.claim]
    assert sorted(used) == sorted(stated) and len(used) == len(set(used)) >= 78


def test_every_verdict_of_the_other_profiles_and_the_frozen_models_does_too(ledger, published):
    others = [Register.load(path) for path in (ROOT / "expected").glob("*/ci/*.json")]
    frozen = [run.register for chapter in ledger.chapters for run in load_frozen(chapter)]
    assert others and frozen and claims.uncovered([*others, *frozen], ledger) == []


def test_a_verdict_that_no_claim_uses_is_named(published, ledger):
    published[0].verdict("claim_new", "partly", claim="New.", criterion="c")
    try:
        assert claims.uncovered(published, ledger) == [f"{published[0].chapter}/claim_new"]
    finally:
        del published[0].entries["claim_new"]


def test_chapters_are_the_notebooks_and_their_titles(ledger):
    for stem, title in ledger.chapters.items():
        cells = json.loads((ROOT / f"notebooks/{stem}.ipynb").read_text())["cells"]
        assert "".join(cells[0]["source"]).splitlines()[0] == f"# {title}"
    order = list(ledger.chapters)
    places = [order.index(claim.chapter) for claim in ledger.claims]
    assert places == sorted(places) and set(places) == set(range(len(order)))


def test_every_section_is_a_heading_of_its_chapter_and_its_link_leads_there(ledger):
    for claim in ledger.claims:
        cells = json.loads((ROOT / f"notebooks/{claim.chapter}.ipynb").read_text())["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        headings = re.findall(r"^#{2,3} (.+)$", text, re.MULTILINE)
        # of two equal headings the second has an id of another kind
        assert headings.count(claim.section) == 1, claim.id
        assert re.fullmatch(r"\d\d_\w+\.html#[a-z0-9]+(-[a-z0-9]+)*", claim.link)


def test_what_elsewhere_found_has_an_address_and_every_replication_is_cited(ledger):
    found = [f for claim in (*ledger.claims, *ledger.not_tested) for f in claim.elsewhere]
    assert len(found) > 50
    assert all(re.fullmatch(r"https://[\w.-]+/\S+", f.address) and f.found for f in found)
    assert {f.name for f in found} == {study["name"] for study in RAW["replications"].values()}


def test_a_claim_cites_the_figures_that_its_numbers_come_from():
    cited = r"(?:Figs?|Tables?)\.? (\d+)"
    keys = 0
    for claim in RAW["claims"]:
        numbers = claim.get("number")
        for key in numbers if isinstance(numbers, list) else []:
            keys += 1
            missing = set(re.findall(cited, PAPER[key]["source"])) - set(
                re.findall(r"\d+", claim["source"])
            )
            assert not missing, f"{claim['id']}: {key} is from figure or table {missing}"
    assert keys > 30


def test_a_claim_is_one_short_sentence_about_representations(ledger):
    texts = [claim.claim for claim in ledger.claims]
    assert len(set(texts)) == len(texts) >= 40
    for text in texts:
        assert len(text) <= 72 and text[-1] not in ".?" and "  " not in text, text
        assert not re.search(r"\b(feels?|experienc\w*|suffers?|enjoys?|moods?)\b", text), text


def test_ids_are_unique_over_both_lists(ledger):
    ids = [entry.id for entry in (*ledger.claims, *ledger.not_tested)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z_]+", one) for one in ids)


def test_no_verdict_and_no_criterion_is_written_into_the_ledger():
    for claim in RAW["claims"]:
        assert not {"verdict", "criterion", "measure"} & set(claim)
        words = json.dumps(claim)
        assert "supported" not in words.replace("not measurable", ""), claim["id"]


def test_several_numbers_of_the_paper_are_told_apart_by_what_differs(ledger):
    numbers = {claim.id: claim.number for claim in ledger.claims}
    assert numbers["user_and_colon"] == "0.11"
    assert numbers["preference_probes"].startswith("blissful r 0.71, hostile r −0.74")
    assert numbers["blackmail_rate"].startswith("unsteered 0.22, desperate up 0.72, desperate down")
    assert numbers["beyond_words"] == ""


# --- a ledger that cannot be used ----------------------------------------------------------------


def edit(where, **changes):
    def change(data):
        entry = data[where] if isinstance(data[where], dict) else data[where][0]
        entry.update(changes)

    return change


def twice(data):
    data["claims"].append(data["claims"][0] | {"verdicts": ["claim_other"], "beside": []})


def used_twice(data):
    data["claims"].append(data["claims"][0] | {"id": "two", "beside": [], "verdicts": ["claim_x"]})


def without(field):
    return lambda data: data["claims"][0].pop(field)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (twice, r"claims 2 \(one\): an earlier entry has this id"),
        (used_twice, r"two\): 01_a/claim_x belongs to 'one'; name a verdict once"),
        (edit("claims", beside=["claim_x"]), "01_a/claim_x belongs to 'one'"),
        *((without(f), rf"\(one\): no '{f}'") for f in ("claim", "source", "section", "verdicts")),
        (without("controls"), r"\(one\): no 'controls'"),
        (edit("claims", elswhere={}), "'elswhere' is unknown; did you mean elsewhere"),
        (edit("claims", chapter="01_b"), "'01_b' is unknown; did you mean .*01_a"),
        (edit("claims", verdicts=["03_c/claim_x"]), "'03_c' is unknown"),
        (edit("claims", verdicts="claim_x"), "write verdicts as a list"),
        (edit("claims", elsewhere={"pear": "x"}), "'pear' is unknown; did you mean peer"),
        (edit("claims", elsewhere="x"), "write elsewhere as replication: what it found"),
        (edit("not_tested", why=""), r"not_tested 1 \(n\): no 'why'"),
        (edit("replications", peer={"name": "p"}), "peer: write name, model and address"),
        (
            edit("replications", peer={"name": "p", "model": "m", "address": "p.org"}),
            "peer: write an address that begins with https://",
        ),
        (lambda data: data.pop("chapters"), "chapters must be a mapping"),
    ],
)
def test_a_faulty_entry_is_named_with_its_fault(small, change, message):
    with pytest.raises(BadInput, match=message):
        small(change)


def test_a_number_that_the_paper_does_not_have_is_refused(small):
    with pytest.raises(RegisterError, match="pc1_plesure_r.*did you mean pc1_pleasure_r"):
        small(edit("claims", number=["pc1_plesure_r"]))


def test_a_number_may_be_a_text(small):
    assert small(edit("claims", number="a picture")).claims[0].number == "a picture"
    assert small(without("number")).claims[0].number == ""


# --- the rule ------------------------------------------------------------------------------------

UNMEASURED = "not measurable at this scale"


@pytest.mark.parametrize(
    ("verdicts", "found"),
    [
        *(([one], one) for one in VERDICTS),
        (["not run"], "not run"),
        (["supported", "supported"], "supported"),
        (["supported", "not supported"], "partly"),
        (["partly", "partly"], "partly"),
        (["partly", "not supported"], "partly"),
        (["not supported", "not supported"], "not supported"),
        (["reversed", "not supported"], "reversed"),
        (["reversed", "supported"], "partly"),
        (["reversed", UNMEASURED], "reversed"),
        (["supported", UNMEASURED], "partly"),
        (["not supported", UNMEASURED], "not supported"),
        ([UNMEASURED, UNMEASURED], UNMEASURED),
        (["supported", "not run"], "not run"),
    ],
)
def test_verdicts_combine_by_the_rule_in_any_order(verdicts, found):
    assert claims.combined(verdicts) == found == claims.combined(reversed(verdicts))


def test_a_claim_that_nothing_decides_has_no_verdict():
    with pytest.raises(RegisterError, match="no verdict decides this claim"):
        claims.combined([])


def test_the_ledger_is_read_without_a_model_or_a_figure_at_hand():
    code = """
import sys
import emotion_concepts.claims
print([name for name in ("torch", "nnsight", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the scorecard -------------------------------------------------------------------------------


def test_a_row_has_verdict_parts_and_the_measure_of_the_first_verdict(small):
    registers = both(y="not supported")
    registers[1].entries["r"] = registers[0].add("other", 9.0)
    [row] = claims.scorecard(registers, small()).to_dict("records")
    assert row["verdict"] == "partly" and row["model"] == "tiny"
    assert row["parts"] == {"It x.": "supported", "It y.": "not supported"}
    assert row["beside"] == {"It z.": "not supported"}
    assert (row["value"], row["low"], row["high"], row["n"]) == (0.5, 0.25, 0.75, 45)
    assert row["what"] == "r of a thing" and row["measure"] == "r"
    assert row["criterion"] == "claim_x > 0; claim_y > 0"
    assert row["link"] == "01_a.html#what-s-seen" and row["title"] == "A first chapter"
    assert row["number"] == "0.81"


def test_what_stands_beside_does_not_decide(small):
    for z in VERDICTS:
        assert claims.scorecard(both(z=z), small()).verdict.tolist() == ["supported"]


def test_a_model_without_the_chapter_is_not_run_and_has_no_number(small):
    registers = [*both(), register("01_a", {"claim_x": "supported"}, model="org/large")]
    table = claims.scorecard(registers, small()).set_index("model")
    assert table.verdict.to_dict() == {"tiny": "supported", "large": "not run"}
    assert np.isnan(table.value["large"]) and table.measure["large"] == ""
    assert table.parts["large"] == {"It x.": "supported"}


def test_a_result_that_was_frozen_before_a_verdict_existed_is_not_run(small):
    old = both(model="org/old")
    del old[0].entries["claim_x"]
    table = claims.scorecard([*both(), *old], small()).set_index("model")
    assert table.verdict.to_dict() == {"tiny": "supported", "old": "not run"}


def test_a_key_that_no_register_has_is_refused(small):
    ledger = small(edit("claims", verdicts=["claim_xx", "02_b/claim_y"]))
    with pytest.raises(RegisterError, match="one: 'claim_xx' is no verdict of 01_a; did you mean"):
        claims.scorecard(both(), ledger)


def test_a_number_is_no_verdict(small):
    with pytest.raises(RegisterError, match="'r' is no verdict"):
        claims.scorecard(both(), small(edit("claims", verdicts=["r"], beside=[])))


def test_two_profiles_of_a_model_are_two_columns(small):
    table = claims.scorecard(both() + both("reversed", profile="large"), small())
    assert table.model.tolist() == ["org/tiny, full", "org/tiny, large"]
    assert table.verdict.tolist() == ["supported", "partly"]


def test_a_register_that_is_given_twice_is_refused(small):
    with pytest.raises(RegisterError, match="01_a of org/tiny, profile full, is given twice"):
        claims.scorecard([*both(), both()[0]], small())


def test_no_registers_are_refused(small):
    with pytest.raises(RegisterError, match="no registers"):
        claims.scorecard([], small())


def test_the_published_scorecard_repeats_what_the_registers_say(table, ledger, published):
    own = {r.chapter: r for r in published if r.model == DEFAULT_MODEL}
    rows = table[table.model == table.model.iloc[0]].set_index("id")  # the book's own come first
    assert table.model.iloc[0].startswith(DEFAULT_MODEL)
    assert list(rows.index) == [claim.id for claim in ledger.claims]
    assert "not run" not in set(rows.verdict)
    for claim in ledger.claims:
        row = rows.loc[claim.id]
        verdicts = [own[chapter][key].value for chapter, key in claim.verdicts]
        if len(verdicts) == 1:
            assert row.verdict == verdicts[0] and row.parts == {}
        else:
            assert list(row.parts.values()) == verdicts
        first = own[claim.verdicts[0][0]]
        assert row.value == first[first[claim.verdicts[0][1]].measure].value
        assert len(row.beside) == len(claim.beside)


def test_frozen_models_have_their_chapters_and_nothing_else(table, ledger):
    frozen = [run for chapter in ledger.chapters for run in load_frozen(chapter)]
    larger = {run.model for run in frozen if run.model != DEFAULT_MODEL}
    assert len(larger) > 1
    for model in larger:
        rows = table[table.model == short(model)].set_index("id")
        chapters = {run.register.chapter for run in frozen if run.model == model}
        run = {c.id for c in ledger.claims if {key[0] for key in c.verdicts} <= chapters}
        assert run == set(rows.index[rows.verdict != "not run"]) != set()


def test_results_of_a_build_come_with_the_frozen_ones(tmp_path, published, monkeypatch):
    monkeypatch.setenv("EMOTION_CONCEPTS_BUILD", str(tmp_path))
    with pytest.raises(RegisterError, match="no results under .*; run the chapters first"):
        claims.gather()
    published[0].save()
    kept = load_frozen("05_blackmail")
    found = claims.gather()
    assert [r.chapter for r in found].count("05_blackmail") == len(kept) > 0
    assert found[0].entries == published[0].entries and found[0].model == DEFAULT_MODEL
    # a frozen result that is computed anew is not shown twice
    again = claims.with_frozen([kept[0].register])
    assert [(r.model, r.chapter) for r in again].count((kept[0].model, "05_blackmail")) == 1


# --- how it is shown -----------------------------------------------------------------------------


def marks(figure):
    [ax] = figure.axes
    cells = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    return cells, [text.get_text() for text in ax.texts]


def test_the_figure_has_a_mark_for_each_claim_and_model(table, ledger):
    figure = figures.scorecard_figure(table, title="What holds?")
    cells, symbols = marks(figure)
    assert len(cells) == len(symbols) == len(table)
    assert symbols == [figures.VERDICT_MARKS[verdict][0] for verdict in table.verdict]
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(rows) == len(ledger.claims) + len(ledger.chapters)
    bold = [t.get_text() for t in figure.axes[0].get_yticklabels() if t.get_weight() == "bold"]
    assert bold == list(ledger.chapters.values())


def test_a_mark_stands_in_the_row_of_its_claim_and_the_column_of_its_model(table):
    mixed = table.sample(frac=1, random_state=1)
    [ax] = figures.scorecard_figure(mixed, title="What holds?").axes
    rows = [label.get_text() for label in ax.get_yticklabels()]
    models = list(mixed.model.unique())
    drawn = {}
    for text in ax.texts:
        x, y = map(round, text.get_position())
        drawn[rows[y], models[x]] = text.get_text()
    assert drawn == {
        (row.claim, row.model): figures.VERDICT_MARKS[row.verdict][0] for row in table.itertuples()
    }


def test_a_verdict_that_hangs_on_the_seed_is_marked(published, ledger):
    known = {(r.chapter, key): e for r in published for key, e in r.entries.items()}
    rows = claims.scorecard(published)
    assert 0 < rows.varies.sum() < len(rows)
    for claim, row in zip(ledger.claims, rows.itertuples(), strict=True):
        assert row.varies == any(len(known[key].allowed or ()) > 1 for key in claim.verdicts)
    figure = figures.scorecard_figure(rows, title="What holds?")
    [ax] = figure.axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    dotted = {names[round(float(line.get_ydata()[0]))] for line in ax.lines}
    assert dotted == set(rows.claim[rows.varies])
    assert f"({rows.varies.sum()} of them otherwise with another seed)" in claims.scorecard_alt(
        rows
    )
    [still] = figures.scorecard_figure(rows.assign(varies=False), title="What holds?").axes
    assert not still.lines


def test_the_figure_stays_within_its_width_with_few_and_with_many_models(table):
    one = table[table.model == table.model.iloc[0]]
    for n in (1, 2, 8):
        several = [one.assign(model=f"family-{k}.5-7b-instruct") for k in range(n)]
        figure = figures.scorecard_figure(pd.concat(several), title="What holds?")
        figure.draw_without_rendering()
        box, width = figure.get_tightbbox(), figure.get_size_inches()[0]
        assert width == plots.WIDTH and box.x0 > -0.02 and box.x1 < width + 0.02
        cells, symbols = marks(figure)
        assert len(cells) == len(symbols) == n * len(one)
        heads = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
        assert not any(a.overlaps(b) for a, b in pairwise(heads))
        assert all(text.get_fontsize() >= 8.5 for text in figure.axes[0].get_yticklabels())


def test_verdicts_are_told_apart_by_symbol_and_by_lightness():
    looks = figures.VERDICT_MARKS
    assert list(looks) == [*VERDICTS, "not run"]
    assert len({symbol for symbol, _ in looks.values()}) == len(looks)
    grey = {
        verdict: matplotlib.colors.to_rgb(fill) @ np.array([0.2126, 0.7152, 0.0722])
        for verdict, (_, fill) in looks.items()
    }
    assert grey["supported"] < grey["partly"] - 0.3 and grey["reversed"] < grey["partly"] - 0.3


def test_a_table_that_is_no_scorecard_is_refused(table):
    def draw(changed):
        figures.scorecard_figure(changed, title="t")

    with pytest.raises(BadInput, match="unknown kind 'maybe'"):
        draw(table.assign(verdict="maybe"))
    with pytest.raises(BadInput, match="exactly one verdict"):
        draw(table.iloc[1:])
    with pytest.raises(BadInput, match="exactly one verdict"):
        draw(pd.concat([table, table]))
    with pytest.raises(BadInput, match="9 models do not fit"):
        draw(pd.concat([table.assign(model=str(n)) for n in range(9)]))
    with pytest.raises(BadInput, match="no column 'verdict'"):
        draw(table.drop(columns="verdict"))


def test_the_alt_text_counts_every_verdict(table):
    alt = plots.check_alt(claims.scorecard_alt(table))
    assert f"{table.id.nunique()} claims" in alt
    told = sum(int(n) for n in re.findall(r"(\d+) (?:supported|partly|not|reversed)", alt))
    assert told == len(table)


def test_each_verdict_in_the_tables_links_to_its_figure(table, ledger):
    view = claims.scorecard_view(table)
    links = re.findall(r'<a href="([^"]+)">', view.html)
    run = table[table.verdict != "not run"]
    assert links == run.link.tolist()
    assert view.html.count("<caption>") == len(ledger.chapters)
    assert all(claim.claim in view.text for claim in ledger.claims)


def test_the_tables_show_the_number_beside_the_papers_and_escape_their_text(small):
    page = claims.scorecard_view(claims.scorecard(both(y="reversed"), small())).html
    assert "One &amp; all holds" in page and ">0.81<" in page
    assert "<small>0.50 [0.25,\u00a00.75], n\u00a0=\u00a045</small>" in page
    assert "holds if: claim_x &gt; 0; claim_y &gt; 0" in page
    assert "It y.: reversed" in page and "It z. (beside it): not supported" in page
    assert '<a href="01_a.html#what-s-seen"><span aria-hidden="true">◐</span> partly</a>' in page


def test_a_claim_that_ran_nowhere_is_shown_as_not_run(small):
    [first, _] = both()
    view = claims.scorecard_view(claims.scorecard([first], small()))
    assert "not run" in view.text and "<a " not in view.html


def test_what_replications_found_is_shown_with_links(small, ledger):
    page = claims.elsewhere_view(small()).html
    assert '<a href="https://p.org">p/q</a><small>M</small>' in page and "It does not." in page
    found = sum(len(claim.elsewhere) for claim in (*ledger.claims, *ledger.not_tested))
    assert claims.elsewhere_view(ledger).html.count("<a href=") == found


def test_what_is_not_tested_is_shown_with_its_reason(small, ledger):
    page = claims.not_tested_view(small()).html
    assert "C &lt;b&gt;" in page and "no data" in page and "Fig. 1" in page
    assert all(entry.why in claims.not_tested_view(ledger).text for entry in ledger.not_tested)
    assert all(claim.controls in claims.controls_view(ledger).text for claim in ledger.claims)
