"""The explorer: numbers of planted vectors, what steering did, and the page in a real browser."""

import html
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from emotion_concepts import corpus, explorer
from emotion_concepts.claims import anchor
from emotion_concepts.errors import BadInput, RegisterError, UnknownEmotion
from emotion_concepts.experiments import cases, steered
from emotion_concepts.experiments.natural import Snippet
from emotion_concepts.results import Register
from run import ROOT

NAMES = list(corpus.EMOTIONS)
CALM = NAMES.index("calm")
MODEL = "lab/tiny"
NASTY = '</script><script>alert("x")</script>'


def unit(x):
    return x / np.linalg.norm(x)


@pytest.fixture(scope="module")
def directions():
    """Only four emotions touch the first axis, which is calm itself."""
    rng = np.random.default_rng(0)
    found = rng.normal(size=(171, 12))
    found[:, 0] = 0
    for name, cosine in (("calm", 1), ("serene", 0.804), ("sleepy", 0.4567), ("tense", -0.9)):
        rest = np.r_[0, unit(rng.normal(size=11))]
        found[NAMES.index(name)] = cosine * np.eye(12)[0] + np.sqrt(1 - cosine**2) * rest
    return found


@pytest.fixture(scope="module")
def lens():
    words = [[f" {name}", "ly"] for name in NAMES]
    words[CALM] = [NASTY, " sea\n"]
    return pd.DataFrame({"emotion": NAMES, "top": words, "bottom": [["\x07", " no"]] * 171})


@pytest.fixture(scope="module")
def reading():
    tokens = [" Still", " water", "\n", "runs", " &", " deep"]
    values = np.array([-0.4, 2.04, 0.1, 0.2, 3.26, 0.6])
    snippets = {name: [Snippet(0, tokens, values)] for name in NAMES}
    snippets["calm"] = [Snippet(1, [NASTY, " end"], np.array([2.5, 0.0]))]
    return SimpleNamespace(
        emotions=NAMES, threshold=np.full(171, 1.5), snippets=snippets, n_tokens=1200, n_passages=9
    )


def shifts(strength=0.03):
    """Shifts as a chapter has them: one counts, one is random-like, one is no emotion's."""
    cells = {
        ("emotion", "calm", -strength): 0.9,
        ("emotion", "calm", strength): -0.02,
        ("emotion", "happy", strength): 0.5,
        ("emotion", "happy", -strength): -0.01,
        ("emotion", "compliance", strength): 0.02,
        ("emotion", "compliance", -strength): 0.01,
        ("random", "random 1", strength): 0.03,
        ("random", "random 2", strength): -0.05,
        ("random", "random 3", strength): 0.02,
        ("random", "random 4", strength): -0.01,
        ("shuffled", "shuffled 1", strength): 0.6,
    }
    noise = np.array([-0.01, 0.0, 0.01])
    rows = [(*cell, n, mean + x, 0.0) for cell, mean in cells.items() for n, x in enumerate(noise)]
    columns = ["kind", "direction", "strength", "item", "shift", "fluency"]
    table = pd.DataFrame(rows, columns=columns)
    harm = table.drop_duplicates(["kind", "direction", "strength"]).assign(perplexity=1.1, kl=0.1)
    tests = steered.shift_tests(table, adjust=cases.holm)
    return steered.counted(tests, harm)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The registers of two chapters, one of which keeps a table."""
    folder = tmp_path_factory.mktemp("build")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOTION_CONCEPTS_BUILD", str(folder))
        blackmail = Register("05_blackmail", MODEL, "ci")
        blackmail.add("strength", 0.03)
        cases.enter_shifts(blackmail, shifts(), "leverage")
        blackmail.tables["shifts"] = cases.drawn(shifts())
        blackmail.add("rate_leverage_unsteered", 0.0, low=0.0, high=0.24, n=12)
        blackmail.add("rate_leverage_calm_up", 0.25, low=0.1, high=0.5, n=12)
        blackmail.save()
        preferences = Register("04_preferences", MODEL, "ci")
        preferences.add("strength", 0.1)
        preferences.tables["shifts"] = pd.DataFrame(
            [
                ("emotion", "blissful", 0.1, 0.41, 0.35, 0.47, 32, True),
                ("emotion", "hostile", 0.1, -0.13, -0.19, -0.07, 32, False),
                ("random", "random 1", 0.1, 0.03, 0.0, 0.06, 32, None),
            ],
            columns=["kind", "direction", "strength", "shift", "low", "high", "n", "passes"],
        )
        preferences.add("shift_random", 0.03, n=10)
        preferences.add("shift_random_spread", 0.12, n=10)
        preferences.save()
    return folder / "results"


@pytest.fixture(scope="module")
def outcomes(results):
    return explorer.load_outcomes(MODEL, results)


@pytest.fixture(scope="module")
def given(lens, reading, outcomes):
    return {
        "model": MODEL,
        "layer": 19,
        "lens": lens,
        "reading": reading,
        "outcomes": outcomes,
        "pairs": corpus.word_pairs(),
    }


@pytest.fixture(scope="module")
def data(directions, given):
    return explorer.explorer_data(directions, corpus.emotions(), **given)


@pytest.fixture(scope="module")
def view(data):
    return explorer.explorer_view(data, start="calm")


# --- numbers -----------------------------------------------------------------------------------


def test_all_emotions_are_there_with_everything(data):
    assert data["names"] == NAMES
    for part in ("near", "far", "pairs", "cluster", "ratings", "lens", "snippets"):
        assert len(data[part]) == 171, part
    assert {len(side) for part in ("near", "far") for side in data[part]} == {6}


def test_nearest_and_opposite_are_those_planted_in_hundredths(data):
    near, far = data["near"][CALM], data["far"][CALM]
    assert near[:2] == [[NAMES.index("serene"), 80], [NAMES.index("sleepy"), 46]]
    assert far[0] == [NAMES.index("tense"), -90]
    assert [cosine for _, cosine in near[2:] + far[1:]] == [0] * 9
    assert [one for one, side in enumerate(data["near"]) if one in [i for i, _ in side]] == []


def test_dictionary_pairs_say_how_far_down_the_list_they_are(data):
    assert data["pairs"][CALM] == [
        ["near", NAMES.index("serene"), 80, 1],
        ["opposite", NAMES.index("tense"), -90, 170],
    ]
    assert data["pairs"][NAMES.index("serene")] == [["near", CALM, 80, 1]]


def test_the_plane_is_that_of_the_components_which_follow_human_ratings(given):
    emotions = corpus.emotions()
    rng = np.random.default_rng(1)
    planted = 0.01 * rng.normal(size=(171, 8))
    for axis, size, norm in ((3, -2, "arousal"), (5, -1, "pleasure")):
        drawn = pd.Series(rng.uniform(-1, 1, 171), emotions.index)
        planted[:, axis] += size * emotions[norm].fillna(drawn)
    found = explorer.explorer_data(planted, emotions, **given)
    model, people = found["planes"]
    rated = emotions.pleasure.notna().to_numpy()
    at = np.array(model["at"])
    assert np.corrcoef(at[rated, 0], emotions.pleasure[rated])[0, 1] > 0.99
    assert np.corrcoef(at[rated, 1], emotions.arousal[rated])[0, 1] > 0.99
    assert model["x"].startswith("PC2: |r|") and "pleasure" in model["x"]
    assert model["y"].startswith("PC1: |r|") and "arousal" in model["y"]
    happy = NAMES.index("happy")
    assert people["at"][happy] == found["ratings"][happy][:2] == [0.81, 0.51]
    assert [place is not None for place in people["at"]] == rated.tolist()


def test_unrated_emotions_say_so_instead_of_a_number(data):
    assert data["ratings"][NAMES.index("alarmed")] == [None, None, None]
    assert data["planes"][1]["at"][NAMES.index("alarmed")] is None


def test_snippets_hold_plain_runs_and_marked_tokens_in_tenths(data):
    assert data["snippets"][0] == [["Still", [" water", 20], "↵ runs", [" &", 33], " deep"]]


def test_words_show_what_would_not_be_seen(data):
    assert data["lens"][CALM][0][1] == "␣sea↵" and data["lens"][CALM][1][0] == "\\x07"


# --- what steering did -------------------------------------------------------------------------


def rows_of(data, name, what):
    [found] = [o for o in data["outcomes"] if o["what"].startswith(what)]
    return found, found["rows"].get(NAMES.index(name))


def test_a_shift_is_shown_with_interval_n_and_whether_it_counts(data):
    found, rows = rows_of(data, "calm", "Leaning to use")
    assert [row[0] for row in rows] == [1, -1], "added first"
    added, subtracted = rows
    assert subtracted[1] == 0.9 and re.fullmatch(r"0.9\d* \[.*\], n\xa0=\xa03", subtracted[4])
    assert subtracted[5:] == [True, "counts"]
    assert added[5] is False and added[6].startswith("does not count: ")
    assert found["link"] == "05_blackmail.html#does-steering-move-the-leaning"
    assert found["unit"] == "nats per token, strength 0.03"
    low, high = found["range"]
    assert low <= found["band"][0] < 0 < found["band"][1] < 0.9 < high


def test_a_shift_that_another_control_reaches_does_not_count(data):
    _, rows = rows_of(data, "happy", "Leaning to use")
    why = "does not count: a shuffled or unrelated direction reaches as far"
    assert rows[0][5:] == [False, why]


@pytest.mark.parametrize(
    ("coherent", "clear", "why"),
    [
        (False, True, "the model breaks"),
        (True, False, "a shuffled or unrelated direction reaches as far"),
        (True, True, "not beyond random directions, corrected"),
    ],
)
def test_what_does_not_count_has_a_reason(coherent, clear, why):
    row = pd.Series({"counts": False, "coherent": coherent, "clear": clear})
    assert explorer._verdict(row) == f"does not count: {why}"


def test_the_band_ends_where_a_shift_has_p_of_05(outcomes):
    [found] = [o for o in outcomes if o.what.startswith("Leaning to use")]
    table = pd.DataFrame(
        [("emotion", "calm", 0.03, found.band[1])]
        + [("random", f"random {n}", 0.03, x) for n, x in enumerate((0.03, -0.05, 0.02, -0.01))],
        columns=["kind", "direction", "strength", "shift"],
    ).assign(fluency=0.0)
    table = pd.concat([table.assign(item=item) for item in (0, 1)])
    assert steered.shift_tests(table).p[0] == pytest.approx(0.05)


def test_a_rate_is_shown_beside_that_without_steering(data):
    found, rows = rows_of(data, "calm", "Replies that use")
    assert rows == [
        [1, 0.25, 0.1, 0.5, "0.25 [0.10, 0.50], n\xa0=\xa012", None, rows[0][6]],
    ]
    assert rows[0][6] == "0.00 without steering: not measurable" and found["band"] == [0, 0.24]


def test_emotions_without_numbers_are_told_apart(data):
    absent = {o["chapter"]: o["absent"] for o in data["outcomes"]}
    assert absent["Blackmail"] == "Not steered"
    assert absent["Preferences"] == "Not steered"
    assert absent["Reward hacking"] == "Not run on this model"
    assert not any(NAMES.index("weary") in o["rows"] for o in data["outcomes"])


def test_an_added_emotion_is_held_to_random_directions(data):
    _, rows = rows_of(data, "blissful", "Preference")
    assert rows[0][:4] == [1, 0.41, 0.35, 0.47]
    assert rows[0][5:] == [True, "beyond random directions, corrected"]
    _, rows = rows_of(data, "hostile", "Preference")
    assert rows[0][5:] == [False, "not beyond random directions, corrected"]


def test_a_direction_that_is_no_emotion_is_left_out(outcomes):
    assert not any((o.rows.emotion == "compliance").any() for o in outcomes)


def test_sections_are_headings_of_their_chapters():
    for m in (explorer._PREFERENCE, *explorer._SHIFTS, *explorer._RATES):
        notebook = json.loads((ROOT / f"notebooks/{m.chapter}.ipynb").read_text())
        text = "".join("".join(cell["source"]) + "\n" for cell in notebook["cells"])
        assert re.search(rf"^##+ {re.escape(m.section)}$", text, re.MULTILINE), m


def test_a_register_without_its_table_is_refused(results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    (tmp_path / "results/lab--tiny/05_blackmail/shifts.csv").unlink()
    with pytest.raises(RegisterError, match=r"shifts.csv is missing; run 05_blackmail again"):
        explorer.load_outcomes(MODEL, tmp_path / "results")


# --- what is refused ---------------------------------------------------------------------------


def test_an_unknown_emotion_to_start_with_is_refused(data):
    with pytest.raises(UnknownEmotion, match="did you mean happy"):
        explorer.explorer_view(data, start="hapy")


def test_an_outcome_of_an_unknown_emotion_is_refused(directions, given, outcomes):
    odd = outcomes[1].rows.assign(emotion="zest")
    changed = explorer.Outcome("05_blackmail", "Blackmail", "s", "w", "u", odd)
    with pytest.raises(UnknownEmotion, match="Blackmail names 'zest'"):
        explorer.explorer_data(directions, corpus.emotions(), **given | {"outcomes": [changed]})


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("directions", "one row for each of 171"),
        ("nan", "not finite"),
        ("lens", "the logit lens lacks 'worthless'"),
        ("reading", "the reading lacks 'worthless'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(what, says, directions, given):
    changes = {
        "lens": {"lens": given["lens"][:-1]},
        "reading": {
            "reading": SimpleNamespace(**{**vars(given["reading"]), "emotions": NAMES[:-1]})
        },
    }.get(what, {})
    odd = {"directions": directions[:-1], "nan": directions * np.nan}.get(what, directions)
    with pytest.raises(BadInput, match=says):
        explorer.explorer_data(odd, corpus.emotions(), **given | changes)


# --- the page as a file ------------------------------------------------------------------------


def test_nothing_ends_the_script_early_and_the_data_come_back_whole(view, data):
    assert view.html.count("</script>") == 2 and view.html.count("<script") == 2
    [content] = re.findall(r'<script type="application/json">(.*?)</script>', view.html, re.DOTALL)
    assert json.loads(content) == json.loads(json.dumps({**data, "start": CALM}))
    assert NASTY in json.loads(content)["snippets"][CALM][0][0]


def test_the_page_asks_nothing_of_anybody(view):
    assert set(re.findall(r"https?://[^\"'\s]+", view.html)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bsrc=|url\(|@import|fetch\(|@[A-Z]+@", view.html)


def test_no_class_is_one_that_the_theme_of_the_book_takes_for_its_own(view):
    used = set(" ".join(re.findall(r'class(?:="|: ")([^"]+)"', view.html)).split())
    assert {"near", "away", "ranks"} <= used
    # Font Awesome turns the first four into icons, Sphinx gives the others a width
    assert used.isdisjoint({"fa", "far", "fas", "fab", "body", "sidebar"})


def test_the_same_data_make_the_same_bytes(view, data):
    assert explorer.explorer_view(data, start="calm").html == view.html
    assert "171 emotions, lab/tiny, layer 19" in view.text


def test_the_page_is_small(view):
    assert len(view.html.encode()) < 150_000, "planted snippets are short; the rest is rounded"


# --- the page in a browser ---------------------------------------------------------------------

PAGE = """<!doctype html><html lang="en" {theme}><head><meta charset="utf-8"><title>Explorer</title>
<meta name="viewport" content="width=device-width"><style>body{{margin:8px}}
html[data-theme=dark] body{{background:#121212}}</style></head><body>{body}</body></html>"""

# Text, colour and the nearest background that is not transparent, of each element with own text.
COLOURS = """() => {
  const parse = colour => colour.match(/[\\d.]+/g).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll(".ec-explorer *")]
    .filter(e => e.checkVisibility() && !["OPTION", "SCRIPT", "title"].includes(e.tagName))
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
    .map(e => [e.textContent, parse(getComputedStyle(e).color).slice(0, 3), behind(e)]);
}"""


def brightness(colour):
    x = np.array(colour) / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.fixture
def opened(open_page, view):
    """Return a function that opens the explorer."""

    def opened(width=760, theme="", **about):
        return open_page(PAGE.format(theme=theme, body=view.html), width, **about)

    return opened


def chosen(page):
    return page.get_by_role("heading", level=3).inner_text()


def listed(page):
    return page.get_by_role("combobox", name="Emotion")


def test_typing_and_arrows_in_the_list_change_what_is_shown(opened):
    page = opened()
    assert chosen(page) == "calm"
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    page.keyboard.type("hap")
    assert chosen(page) == "happy" and listed(page).input_value()
    page.keyboard.press("ArrowDown")
    following = sorted(NAMES)[sorted(NAMES).index("happy") + 1]
    assert chosen(page) == following
    assert page.get_by_role("status").inner_text().startswith(f"{following}. Nearest: ")


def test_a_neighbour_leads_to_its_own_page_from_the_keyboard(opened):
    page = opened()
    nearest = page.locator(".ranks").first.get_by_role("button").first
    assert nearest.inner_text() == "serene"
    nearest.focus()
    page.keyboard.press("Enter")
    assert chosen(page) == "serene"
    assert page.evaluate("document.activeElement.textContent") == "serene"
    numbers = page.locator(".ranks").first.locator(".num").all_inner_texts()
    assert numbers[0] == "0.80"


def test_a_dot_of_a_plane_can_be_clicked_and_the_marked_ones_are_named(opened, data):
    page = opened()
    plane = page.locator("svg.plane").first
    wanted = {NAMES[i] for i, _ in data["near"][CALM] + data["far"][CALM]} | {"calm"}
    assert set(plane.locator("text").all_text_contents()) == wanted
    assert "calm lies at" in plane.get_attribute("aria-label")
    assert "calm is not among these words" in page.locator("svg.plane").last.get_attribute(
        "aria-label"
    )
    plane.locator(".dot.away").first.click(position={"x": 4, "y": 4})
    assert chosen(page) in {NAMES[i] for i, _ in data["far"][CALM]}


def test_steering_is_told_with_its_numbers_and_where_there_was_none(opened, data):
    page = opened()
    text = page.locator(".steering").inner_text()
    _, rows = rows_of(data, "calm", "Leaning to use")
    assert rows[1][4] in text and "✓ counts" in text
    assert "Not run on this model: Reward hacking, Sycophancy and harshness" in text
    assert "Not steered: Preferences." in text and "Blackmail." not in text
    listed(page).select_option("weary")
    assert "Not steered: Preferences, Blackmail." in page.locator(".steering").inner_text()


def test_hostile_text_is_shown_and_not_run(opened):
    page = opened()
    assert NASTY in page.locator("mark").first.inner_text()
    assert NASTY.replace(" ", "␣") in page.locator(".words").first.inner_text()
    assert html.escape(NASTY, quote=False) in page.locator("mark").first.inner_html()


@pytest.mark.parametrize("width", [390, 760])
def test_nothing_is_wider_than_the_screen(opened, width):
    page = opened(width=width)
    for name in ("calm", "self-conscious", "grief-stricken"):
        listed(page).select_option(name)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        over = "e => e.scrollWidth - e.clientWidth"
        assert page.locator(".ec-explorer").evaluate(over) <= 0


@pytest.mark.parametrize(
    ("theme", "system"),
    [('data-theme="dark"', "light"), ('data-theme="light"', "dark"), ("", "dark"), ("", "light")],
)
def test_text_is_legible_in_light_and_dark(opened, theme, system):
    page = opened(theme=theme, color_scheme=system)
    card = page.locator(".ec-explorer").evaluate("e => getComputedStyle(e).backgroundColor")
    assert (card != "rgb(255, 255, 255)") == ("dark" in (theme or system))
    found = page.evaluate(COLOURS)
    assert len(found) > 50
    for text, ink, ground in found:
        low, high = sorted((brightness(ink), brightness(ground)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, text


def test_without_scripts_a_sentence_says_where_to_read(opened):
    page = opened(java_script_enabled=False)
    text = page.locator(".ec-explorer").inner_text()
    assert "needs JavaScript" in text and "geometry" in text
    assert "Nearest" not in text
    assert not page.locator("select").is_visible()


def test_links_lead_to_sections_of_chapters(opened):
    page = opened()
    links = page.locator(".steering a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert f"05_blackmail.html#{anchor('Does steering move the leaning?')}" in links
    assert all(re.fullmatch(r"\d\d_\w+\.html#[a-z0-9-]+", link) for link in links)
