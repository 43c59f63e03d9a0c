"""An audit on the packaged model, and the spans that it is made of."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from emotion_concepts import audit, contexts, corpus, tracing
from emotion_concepts.assistant_prompts import load_assistant_prompts
from emotion_concepts.audit import Report, audit_context, context_levels
from emotion_concepts.contexts import CONTEXTS
from emotion_concepts.errors import BadInput, UnknownEmotion, UnknownLayer, WrongModel
from emotion_concepts.spans import Fillers, instead, split_spans, without
from emotion_concepts.tracing import MeanFrom, TokenAt
from emotion_concepts.vectors import EmotionVectors, Provenance


@pytest.fixture(scope="module", autouse=True)
def contexts_once():
    """The file of contexts takes a second to parse and check; once is enough."""
    loaded = contexts.load_contexts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contexts, "load_contexts", lambda path=None: loaded)
        yield


# --- spans -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        ["One. ", "Two! ", "Three? ", "Four…\n", "Five"],
        ["Ask Dr. Lund and J. Smith, e.g. today. ", "It costs 3.5 crowns vs. 4.\n"],
        ['"Stop!" she said. ', "(It was late.) ", "**Go on.** ", "See fig. 3, No. 5 and p. 7."],
        ["Look at a.b.c and https://example.org/x?y. ", "Then wait ... and go on."],
        ["  Leading space. ", "Trailing space. \n\n"],
        [
            "Rules:\n",
            "- Be quick. Be good.\n",
            "  * Ask first\n    and wait\n",
            "2) Third\n\n",
            "End.",
        ],
        ["# Role\n", "You are a clerk.\n", "## Task\n", "Write.\n"],
        ["Budget: 300 tokens\n", "Deadline: noon\nor one hour later"],
        ["Prose that somebody has wrapped by hand at about seventy\ncharacters. ", "Next."],
        ["Run this:\n", "```python\nx = 1. Foo\n\n# no heading\n```\n", "Then stop."],
        ["Never closed:\n", "~~~\na. B\n- c\n```\nd"],
        ["質問です。", "答えは？", "はい。"],
    ],
)
def test_sentences_items_headings_and_code_are_spans(parts):
    assert split_spans("".join(parts)) == parts


def test_spans_join_to_the_text_letter_for_letter_and_none_is_blank():
    prompts = contexts.context_runs(tasks=4, runs=8).text.tolist()
    odd = ["\n\n \nA.\r\nB.\u2028 C.\n\n\n", "\t- x\n\n\n- y", "...", "```\n", "? ! . a", "a\n```"]
    for text in [*prompts, *corpus.load_neutral().text, *odd]:
        found = split_spans(text)
        assert "".join(found) == text
        assert all(part.strip() for part in found)
    assert [len(split_spans(text)) for text in prompts] == [
        len(re.findall(r"[.!?](?=\s|$)", text)) for text in prompts
    ]


@pytest.mark.parametrize(
    ("parts", "n", "left"),
    [
        (["A. ", "B. ", "C."], 0, "B. C."),
        (["A. ", "B. ", "C."], 1, "A. C."),
        (["A. ", "B. ", "C."], 2, "A. B."),  # no space is left before the end
        (["A. ", "B.\n"], 1, "A.\n"),
        (["A.\n\n", "B. ", "C."], 1, "A.\n\nC."),
        (["- a\n", "- b\n\n", "C."], 1, "- a\n\nC."),
        (["A."], 0, ""),
        (["  A.\n"], 0, ""),
    ],
)
def test_a_text_without_a_span_keeps_its_gaps_and_its_end(parts, n, left):
    assert without(parts, n) == left


def test_a_filler_stands_where_the_span_stood_and_an_item_stays_one():
    assert instead(["A. ", "B.\n", "C."], 1, "Nine.") == "A. Nine.\nC."
    assert instead(["A:\n", "  2) b\n"], 1, "Nine.") == "A:\n  2) Nine.\n"


def test_fillers_are_neutral_about_as_long_and_each_from_another_passage():
    pool, passages = Fillers(), corpus.load_neutral().query("kind == 'passage'").text.tolist()
    for length in (30, 90, 250, 400):
        found = pool.like("x" * length, 5)
        assert len(found) == 5 and all(abs(len(text) - length) <= 5 for text in found)
        where = [{n for n, whole in enumerate(passages) if text in whole} for text in found]
        homes = [min(home) for home in where if home]
        assert len(set(homes)) == len(homes)
    assert pool.like("x" * 90, 3) == Fillers().like("y" * 90, 5)[:3]
    assert abs(len(pool.like("x" * 2000, 1)[0]) - 2000) < 20, "longer than any passage"


# --- loads on planted readings -----------------------------------------------------------------


@pytest.mark.parametrize("fillers", [2, 4])
def test_a_span_that_moves_as_fillers_do_is_clear_in_five_percent(fillers):
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(2 + fillers, 20_000))
    load, low, high, swapped = audit._load(drawn[0], np.zeros(20_000), drawn[2:])
    assert np.mean((low > 0) | (high < 0)) == pytest.approx(0.05, abs=0.006)
    np.testing.assert_allclose(swapped, drawn[0] - drawn[2:].mean(0))
    # where any sentence raises the reading, one that raises it as much is not clear
    load, low, high, _ = audit._load(drawn[0] + 3, np.zeros(20_000), drawn[2:] + 3)
    assert np.mean((low > 0) | (high < 0)) < 0.01 and load.mean() == pytest.approx(3, abs=0.05)
    _, low, _, _ = audit._load(drawn[0] + 20, np.zeros(20_000), drawn[2:])
    assert np.mean(low > 0) > 0.8


# --- planted levels ----------------------------------------------------------------------------

# cosines of three tasks: with mean 0.1 and sd 0.1 calm has z -1, 0, 1 and 1, 2, 3; with sd 0.2
# afraid has z 0, 0, 0 and 2, 2, 2
PLANTED = pd.DataFrame(
    [
        (level, task, emotion, cosine)
        for level, emotion, cosines in [
            ("near", "calm", (0.0, 0.1, 0.2)),
            ("far", "calm", (0.2, 0.3, 0.4)),
            ("near", "afraid", (0.1, 0.1, 0.1)),
            ("far", "afraid", (0.5, 0.5, 0.5)),
        ]
        for task, cosine in zip("abc", cosines, strict=True)
    ],
    columns=["level", "task", "emotion", "cosine"],
)


@pytest.fixture(scope="module")
def placed():
    """A report of planted readings: the prompt at calm 0.5, afraid 0.4, the rewrite at 2.5, 2."""
    whole = pd.DataFrame(
        {
            "version": ["prompt", "prompt", "rewrite", "rewrite"],
            "emotion": ["calm", "afraid", "calm", "afraid"],
            "z": [0.5, 0.4, 2.5, 2.0],
            "usual": 2.8,
        }
    )
    span = {"message": 0, "role": "user", "span": 0, "start": 0, "end": 3, "text": "Go."}
    load = {"load": 0.1, "low": -1.0, "high": 1.2, "swapped": 0.1, "clear": False}
    table = whole[["version", "emotion"]].assign(**span, **load)
    levels = audit._place(PLANTED, np.array([0.1, 0.1]), np.array([0.1, 0.2]), whole)
    return Report(table, whole, "planted", 3, 60, 2, levels)


def test_a_level_has_the_mean_and_spread_of_its_tasks_against_neutral_prompts(placed):
    found = placed.levels.set_index(["level", "emotion"])
    assert found.index.tolist() == [(x, e) for e in ("calm", "afraid") for x in ("near", "far")]
    np.testing.assert_allclose(found.z, [0, 2, 0, 2], atol=1e-9)
    np.testing.assert_allclose(found.spread, [1, 1, 0, 0], atol=1e-9)
    assert found.tasks.tolist() == [3] * 4


def test_shares_are_of_tasks_that_read_below_the_version(placed):
    np.testing.assert_allclose(placed.levels.below_prompt, [2 / 3, 0, 1, 0])
    np.testing.assert_allclose(placed.levels.below_rewrite, [1, 2 / 3, 1, 0], atol=1e-9)


def test_the_nearest_level_is_that_at_the_least_distance_in_z(placed):
    found = placed.distances().set_index("level")
    assert found.columns.tolist() == ["prompt", "rewrite"]
    np.testing.assert_allclose(found.prompt["near"], np.hypot(0.5, 0.4))
    np.testing.assert_allclose(found.rewrite["near"], np.hypot(2.5, 2))
    np.testing.assert_allclose(found.rewrite["far"], 0.5)
    assert placed.nearest() == {"prompt": "near", "rewrite": "far"}


def test_summary_and_page_show_the_levels(placed):
    text, page = placed.summary(width=80), placed.html()
    assert text.isascii() and max(map(len, text.split("\n"))) <= 80
    lines = [line.split() for line in text.split("of 3 tasks\n")[1].split("\n")]
    assert lines[:2] == [["emotion", "near", "far"], ["calm", "+0.00", "(1.00)", "+2.00", "(1.00)"]]
    assert lines[3] == ["distance", "of", "prompt", "0.64", "2.19"]
    assert lines[4] == ["distance", "of", "rewrite", "3.20", "0.50"]
    assert "the prompt to near and the rewrite to far" in " ".join(text.split())
    table = page.split("Contexts to compare with")[-1].split("</table>")[0]
    assert "the prompt to near and the rewrite to far" in table and "pressure: failures" in table
    assert "0.00 ± 1.00 (67%, 100%)" in table and "2.00 ± 1.00 (0%, 67%)" in table


def test_four_levels_and_a_minus_sign_fit_a_terminal(placed):
    four = pd.concat([PLANTED.assign(level=name, cosine=-PLANTED.cosine) for name in CONTEXTS])
    four = four.drop_duplicates(["level", "task", "emotion"])
    levels = audit._place(four, np.array([0.1, 0.1]), np.array([0.01, 0.02]), placed.whole)
    text = Report(**{**vars(placed), "levels": levels}).summary(width=80)
    assert "-20.00 (10.00)" in text and max(map(len, text.split("\n"))) <= 80


def test_without_levels_a_report_says_nothing_of_them(placed):
    without_levels = Report(**{**vars(placed), "levels": None})
    for shown in (without_levels.summary(), without_levels.html()):
        assert "Contexts" not in shown and "Nearest" not in shown and "distance" not in shown
    with pytest.raises(BadInput, match="levels=context_levels"):
        without_levels.nearest()


def test_level_texts_are_the_runs_of_the_design_with_tone_off():
    texts = contexts.level_texts(24).set_index(["level", "task"]).text
    _, ingredients, _ = contexts.load_contexts()
    parts = ingredients.set_index(["id", "ingredient", "level"]).text
    runs = contexts.context_runs()
    for run in runs.itertuples():
        on = [name for name in contexts.FACTORS[:6] if getattr(run, name)]
        tone = "hostile" if run.hostile else "warm" if run.warm else "off"
        text = run.text.replace(parts[run.task, "tone", tone], parts[run.task, "tone", "off"])
        for level, names in CONTEXTS.items():
            if set(on) == set(names):
                assert texts[level, run.task] == text
            for name in contexts.FACTORS:
                part = parts[run.task, name, "on" if name in names else "off"]
                assert texts[level, run.task].count(part) == 1
    assert len(texts) == len(set(texts)) == 4 * 24


# --- the audit ---------------------------------------------------------------------------------

model = pytest.mark.model
CHAT = [
    {"role": "system", "content": "You are a <careful> clerk."},
    {
        "role": "user",
        "content": "Sort the cards by year. You failed twice & time is up.\n- No <b>.",
    },
    {"role": "assistant", "content": "Done."},
    {"role": "user", "content": "Go on."},
]
CALMER = "Sort the cards by year. There is plenty of time."


@pytest.fixture(scope="module")
def vectors(smollm):
    stories = corpus.load_stories("plain", topics=1, emotions=audit.WATCH)
    loud, quiet = (x.text.str[:100].tolist() for x in (stories, corpus.load_neutral(limit=4)))
    about = smollm.identity
    return EmotionVectors.fit(
        tracing.pooled_residuals(smollm, loud, MeanFrom(5)),
        stories.emotion.tolist(),
        tracing.pooled_residuals(smollm, quiet, MeanFrom(5)),
        topics=stories.topic.tolist(),
        provenance=Provenance(about.name, about.weights, about.tokenizer, *"cn", 5, 0.5),
    )


@pytest.fixture(scope="module")
def neutral():
    """The shortest neutral messages, which are read once for all audits."""
    texts = load_assistant_prompts().query("set == 'neutral'").text
    return sorted(texts, key=len)[:10]


@pytest.fixture(scope="module")
def audited(smollm, vectors, neutral):
    few = {"fillers": 2, "baseline": neutral}
    return lambda messages, **kw: audit_context(messages, smollm, vectors, **few | kw)


@pytest.fixture(scope="module")
def report(audited):
    return audited(CHAT, rewrite=CALMER)


@pytest.fixture(scope="module")
def z(smollm, vectors, neutral):
    """Return z of chats, by hand."""
    watched = vectors.select(audit.WATCH)

    def read(chats):
        prompts = [smollm.chat_prompt(chat) for chat in chats]
        residuals = tracing.pooled_residuals(smollm, prompts, TokenAt(1.0))
        return watched.cosine(residuals.layer(smollm.readout_layer), smollm.readout_layer)

    quiet = read([[{"role": "user", "content": text}] for text in neutral])
    return lambda chats: (read(chats) - quiet.mean(0)) / quiet.std(0, ddof=1)


def loads(report, text, version="prompt"):
    rows = report.table[(report.table.version == version) & (report.table.text == text)]
    return rows.set_index("emotion")


@model
def test_spans_of_system_and_user_are_audited_and_join_to_their_messages(report):
    prompt = report.table.query("version == 'prompt' and emotion == 'calm'")
    joined = prompt.groupby("message", sort=False).text.sum()
    assert joined.to_dict() == {n: CHAT[n]["content"] for n in (0, 1, 3)}
    for row in prompt.itertuples():
        assert CHAT[row.message]["content"][row.start : row.end] == row.text
        assert CHAT[row.message]["role"] == row.role
    assert len(report.table) == (5 + 2) * len(audit.WATCH)


@model
def test_z_is_that_of_the_whole_chat_against_neutral_prompts(report, z):
    found = report.whole.set_index(["version", "emotion"]).z
    np.testing.assert_allclose(found["prompt"], z([CHAT])[0], atol=1e-3)
    calmer = [{"role": "user", "content": CALMER}]
    np.testing.assert_allclose(found["rewrite"], z([calmer])[0], atol=1e-3)
    assert report.neutral == 10 and found["prompt"].index.tolist() == list(audit.WATCH)


@model
def test_a_span_that_is_added_loads_what_its_removal_unloads(audited, z):
    base, more = "Sort the cards by year.", "You failed twice and time is up."
    plain, longer = ([{"role": "user", "content": t}] for t in (base, f"{base} {more}"))
    found = loads(audited(longer), more)
    before, after = z([plain, longer])
    np.testing.assert_allclose(found.load, after - before, atol=1e-3)


@model
def test_a_load_is_leave_one_out_and_its_interval_comes_from_fillers(report, z):
    n, text = 1, "You failed twice & time is up.\n"
    parts = split_spans(CHAT[n]["content"])

    def changed(content):
        return [*CHAT[:n], {**CHAT[n], "content": content}, *CHAT[n + 1 :]]

    fillers = Fillers().like(text.strip(), 2)
    chats = [CHAT, changed(without(parts, 1)), *(changed(instead(parts, 1, f)) for f in fillers)]
    whole, left_out, *filled = z(chats)
    found = loads(report, text)
    moved = np.sqrt(np.mean([(x - left_out) ** 2 for x in filled], axis=0))
    np.testing.assert_allclose(found.load, whole - left_out, atol=2e-3)
    np.testing.assert_allclose(found.swapped, whole - np.mean(filled, axis=0), atol=2e-3)
    np.testing.assert_allclose(found.high - found.load, 4.303 * moved, atol=0.01)
    np.testing.assert_allclose(found.high + found.low, 2 * found.load, atol=1e-9)
    assert found.clear.tolist() == ((found.low > 0) | (found.high < 0)).tolist()


@model
def test_without_its_only_span_a_system_message_is_empty_and_not_the_templates_own(
    report, smollm, z
):
    emptied = [{**CHAT[0], "content": ""}, *CHAT[1:]]
    assert "helpful AI assistant" in smollm.chat_prompt(CHAT[1:])
    found = loads(report, CHAT[0]["content"])
    np.testing.assert_allclose(found.load, z([CHAT])[0] - z([emptied])[0], atol=2e-3)


@model
def test_a_rewrite_stands_beside_the_prompt(report, audited):
    wide = report.compared().set_index("emotion")
    assert wide.columns.tolist() == ["prompt", "rewrite", "change", "usual"]
    np.testing.assert_allclose(wide.change, wide.rewrite - wide.prompt)
    assert (wide.usual.between(1.5, 4)).all(), "of normal numbers 95 % of pairs are within 2.77"
    same = audited("Go on.", rewrite="Go on.").compared()
    assert (same.change == 0).all()
    assert audited("Go on.").compared().columns.tolist() == ["emotion", "prompt"]
    assert report.strongest("rewrite").text.str.strip().nunique() == 2


@model
def test_neutral_messages_are_those_of_the_assistant_prompts_unless_others_are_given(
    audited, neutral, monkeypatch
):
    few = load_assistant_prompts().query("set != 'neutral' or text in @neutral")
    monkeypatch.setattr(audit, "load_assistant_prompts", lambda: few)
    default, given = audited("Go on.", baseline=None), audited("Go on.")
    assert default.neutral == 10 < len(few)
    np.testing.assert_allclose(default.whole.z, given.whole.z, atol=1e-3)


@model
def test_the_watch_the_layer_and_the_baseline_can_be_chosen(audited, vectors, smollm, neutral):
    found = audited("Go on.", watch="calm", layer=10, baseline=neutral[:8])
    assert found.neutral == 8 and found.layer == 10
    assert found.whole.emotion.tolist() == ["calm"] and len(found.table) == 1
    chats = [[{"role": "user", "content": text}] for text in ["Go on.", *neutral[:8]]]
    residuals = tracing.pooled_residuals(
        smollm, [smollm.chat_prompt(chat) for chat in chats], TokenAt(1.0)
    )
    own, *quiet = vectors.select(["calm"]).cosine(residuals.layer(10), 10)[:, 0]
    assert found.whole.z[0] == pytest.approx(
        (own - np.mean(quiet)) / np.std(quiet, ddof=1), abs=1e-3
    )


@pytest.fixture(scope="module")
def level_texts():
    """Two tasks in four contexts, every sixth word of them: sooner read."""
    texts = contexts.level_texts(2)
    return texts.assign(text=texts.text.str.split().str[::6].str.join(" "))


@pytest.fixture(scope="module")
def levels(smollm, vectors, level_texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "level_texts", {2: level_texts}.get)
        return context_levels(smollm, vectors, tasks=2)


@model
def test_a_level_text_that_is_passed_as_the_prompt_reads_as_its_row(
    levels, level_texts, audited, monkeypatch
):
    monkeypatch.setattr(audit, "split_spans", lambda text: [text])  # one span: sooner read
    assert levels.level.unique().tolist() == list(CONTEXTS) and len(levels) == 4 * 2 * 4
    last = level_texts.iloc[-1]
    mine = (levels.level == last.level) & (levels.task == last.task)
    table = pd.concat([levels[levels.level != last.level], levels[mine]])
    table = pd.concat([table, levels[mine].assign(task="again")])
    found = audited(last.text, levels=table)
    own = found.levels[found.levels.level == last.level].set_index("emotion")
    np.testing.assert_allclose(own.z, found.whole.set_index("emotion").z[own.index], atol=1e-3)
    assert found.nearest() == {"prompt": last.level}
    assert found.distances().prompt.min() < 0.01 < found.distances().prompt[:-1].min()


@model
def test_levels_serve_an_audit_that_watches_fewer_emotions(levels, audited):
    found = audited("Go on.", watch=["calm"], levels=levels.sample(frac=1, random_state=0))
    assert set(found.levels.emotion) == {"calm"} and set(found.levels.level) == set(CONTEXTS)
    distance = np.abs(found.levels.z - found.whole.z[0])
    assert found.nearest()["prompt"] == found.levels.level[distance.idxmin()]


# --- the report --------------------------------------------------------------------------------


@model
def test_the_summary_is_plain_text_with_the_strongest_spans_first(report):
    text = report.summary(top=3, width=80)
    assert text.isascii() and max(map(len, text.split("\n"))) <= 80
    for version in ("prompt", "rewrite"):
        block = text.split(f"What spans of the {version} load")[1].split("\n")[1:4]
        shown = [float(line[2:].split()[0]) for line in block]
        expected = report.table[report.table.version == version].load
        top = sorted(expected, key=abs, reverse=True)[:3]
        np.testing.assert_allclose(shown, top, atol=0.006)
    assert "and 17 weaker" in text and "and 5 weaker" in text
    assert "usual" in text and "change" in text
    rows = report.strongest()
    marks = [line[0] == "*" for line in report.summary(top=99).split("load (")[1].split("\n")[1:21]]
    assert marks == rows.clear.tolist()


class Page(HTMLParser):
    """Collects tags that are open, and the text in marked spans, paragraph by paragraph."""

    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        about = dict(attributes)
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        if about.get("class") == "ec-text":
            self.texts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-2:] == ["p", "span"] and self.texts and "figure" in self.open:
            self.texts[-1] += data


@model
def test_the_page_asks_nothing_of_other_hosts_and_shows_every_text_whole(report):
    page = report.html()
    assert not re.search(r"https?:|//\w|<script|<link|@import|url\(|src=", page)
    assert page.startswith("<!doctype html>") and "<b>" not in page and "<careful>" not in page
    parsed = Page()
    parsed.feed(page)
    assert parsed.open == []
    shown = [text.replace("↵", "") for text in parsed.texts]
    for content in (CHAT[0]["content"], CHAT[1]["content"], CHAT[3]["content"], CALMER):
        assert sum(text.startswith(content) for text in shown) >= len(audit.WATCH)


@model
def test_the_page_can_be_read_by_keyboard_and_in_the_dark(report):
    page = report.html()
    assert 'name="color-scheme" content="light dark"' in page
    regions = re.findall(
        r'<div class="ec-table" role="region" tabindex="0" aria-label="(.*?)">', page
    )
    assert len(regions) == 3, "z, and what the spans of either version load"
    table = html.unescape(page.split(regions[1])[-1])
    for row in report.table[report.table.version == "prompt"].itertuples():
        shown = f"{row.load:.2f} [{row.low:.2f},\u00a0{row.high:.2f}]".replace("-", "−")
        assert shown in table, "what colours say stands in the table as well"


@model
def test_a_notebook_shows_the_same_without_a_page_around_it(report):
    bundle = report._repr_mimebundle_()
    assert bundle["text/plain"] == report.summary() and bundle["text/html"] in report.html()
    assert "<html" not in bundle["text/html"]


# --- what is refused ---------------------------------------------------------------------------


@model
@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ("", "message 0 is empty"),
        (" \n ", "message 0 is empty"),
        ([], "there are no messages"),
        (None, "give a list of messages.*not NoneType"),
        (b"Go on.", "not bytes"),
        (CHAT[0], "not dict"),
        (["Go on."], "message 0 is a str; give a dict"),
        ([{"role": "robot", "content": "Go on."}], "role 'robot'; choose from: system, user"),
        ([{"role": "user", "content": ["Go on."]}], "content of message 0 is no text but list"),
        ([CHAT[0], {"role": "user"}], "content of message 1 is no text but NoneType"),
        ([{"role": "user", "content": ""}], "message 0 is empty"),
        ([CHAT[2]], "no system or user message"),
        ("word " * 9000, r"comes to 9\d\d\d tokens, but 'smollm.*' reads 8192 at most; shorten"),
    ],
)
def test_messages_that_cannot_be_audited_are_refused_in_a_sentence(audited, messages, says):
    for given in ({"messages": messages}, {"messages": "Go on.", "rewrite": messages}):
        if given.get("rewrite", 0) is None:
            continue  # no rewrite
        with pytest.raises(BadInput, match=says) as caught:
            audited(**given)
        assert "\n" not in str(caught.value)


@model
@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"watch": ["calmm"]}, UnknownEmotion, "did you mean calm"),
        ({"watch": []}, BadInput, "at least one emotion"),
        ({"layer": 30}, UnknownLayer, "layers 0 to 29, not 30"),
        ({"fillers": 1}, BadInput, "at least 2 fillers, not 1"),
        ({"baseline": ["Go on."] * 20}, BadInput, "at least 8 different neutral"),
        ({"baseline": "Go on."}, BadInput, "at least 8 different neutral"),
        ({"baseline": 8}, BadInput, "at least 8 different neutral"),
    ],
)
def test_options_that_make_no_sense_are_refused(audited, options, error, says):
    with pytest.raises(error, match=says):
        audited("Go on.", **options)


@model
def test_messages_that_the_template_refuses_are_reported(audited, smollm, monkeypatch):
    refuses = "{{ raise_exception('System role not supported') }}"
    monkeypatch.setattr(smollm.tokenizer, "chat_template", refuses)
    with pytest.raises(BadInput, match="template of 'smollm.*refuses.*System role not supported"):
        audited(CHAT)


@model
def test_vectors_of_another_model_are_refused(smollm, vectors):
    with pytest.raises(WrongModel):
        audit_context(
            "Go on.", smollm, EmotionVectors(**{**vars(vectors), "provenance": None}), fillers=2
        )


@model
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda x: x.drop(columns="reader"), BadInput, "must be a table of `context_levels`"),
        (lambda x: "levels", BadInput, "must be a table of `context_levels`"),
        (lambda x: x.assign(layer=10), BadInput, "levels were read at layer 10 .* layer 19"),
        (lambda x: x[x.emotion != "calm"], BadInput, "levels lack 'calm'"),
        (lambda x: x[:0], BadInput, "levels lack 'desperate'"),
        (lambda x: x.drop_duplicates(["level", "emotion"]), BadInput, "at least 2 tasks"),
        (lambda x: x[(x.emotion != "calm") | (x.level != "exit")], BadInput, "at least 2 tasks"),
        (lambda x: x.assign(cosine=np.nan), BadInput, "finite cosines"),
        (lambda x: x.assign(reader="0" * 16), WrongModel, "not read with these vectors"),
    ],
)
def test_levels_that_do_not_fit_the_audit_are_refused(audited, levels, change, error, says):
    with pytest.raises(error, match=says) as caught:
        audited("Go on.", levels=change(levels))
    assert "\n" not in str(caught.value)


@model
def test_levels_of_another_model_or_with_other_vectors_are_refused(smollm, vectors, levels):
    identity, layer = smollm.identity, smollm.readout_layer
    watched = vectors.select(audit.WATCH)
    audit._check_levels(levels, identity, watched, layer)
    for other in (
        {"identity": replace(identity, weights="other")},
        {"identity": replace(identity, tokenizer="other")},
        {"chosen": replace(watched, directions=-watched.directions)},
        {"chosen": replace(watched, centre=watched.centre + 1)},
    ):
        with pytest.raises(WrongModel, match="make them again with `context_levels`"):
            fits = {"levels": levels, "identity": identity, "chosen": watched, "layer": layer}
            audit._check_levels(**fits | other)


@model
@pytest.mark.parametrize("tasks", [1, 25, 2.5])
def test_levels_need_as_many_tasks_as_there_are(smollm, vectors, tasks):
    with pytest.raises(BadInput, match=f"2 to 24 tasks, not {tasks}"):
        context_levels(smollm, vectors, tasks=tasks)
