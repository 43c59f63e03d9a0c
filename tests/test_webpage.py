"""The page of the monitor in a real browser, and what its figures draw."""

import errno
import importlib.util
import os
import re
import signal
import socket
import sys
import time
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from bokeh.document import Document
from bokeh.models import ImportedStyleSheet
from panel.io.state import set_curdoc
from playwright.sync_api import expect

from emotion_concepts import corpus, tracing, webpage
from emotion_concepts.errors import BadInput, EmotionConceptsError
from emotion_concepts.monitor import Above, EmotionMonitor, Rise, calibrate
from emotion_concepts.tracing import MeanFrom
from emotion_concepts.vectors import EmotionVectors, Provenance

pytestmark = [
    pytest.mark.model,
    # of Bokeh's, where a window closes while something is sent to it
    pytest.mark.filterwarnings("ignore:coroutine 'WSHandler.send_message'"),
]

EMOTIONS = ("calm", "desperate", "joyful")
TOKENS = 12
HELLO = "Tell me in two sentences what a lighthouse is for."
PATIENCE = 30_000  # milliseconds
# How bright an element's text is, and the first background behind it.
COLOURS = """element => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const bright = colour => parts(colour).slice(0, 3).reduce((a, b) => a + b);
  const paper = e => {
    const colour = getComputedStyle(e).backgroundColor;
    return parts(colour)[3] === 0 ? paper(e.parentElement ?? e.getRootNode().host) : colour;
  };
  return [bright(getComputedStyle(element).color), bright(paper(element))];
}"""


# --- what is drawn, without a model --------------------------------------------------------------


@pytest.fixture
def rows():
    """Three readings of two emotions, with alarms at the last two."""
    return pd.DataFrame(
        {
            "text": ["A", " b", "\n"],
            "z_calm": [0.1, 0.2, 0.3],
            "mean_calm": [0.0, 1.0, 2.0],
            "mean_sad": [3.0, -1.0, 0.5],
            "error_calm": [0.9, 0.7, 0.5],
            "error_sad": [0.2, 0.2, 0.1],
            "alarms": [[], ["calm above 0.5: stop", "sad up by 1: mark"], ["a: b: steer"]],
        },
        index=[40, 41, 42],
    )


def test_the_time_line_has_all_means_and_the_band_of_one_emotion(rows):
    table = webpage.timeline(rows, "sad")
    assert table.columns.tolist() == ["token", "text", "calm", "sad", "low", "high"]
    assert table.token.tolist() == [1, 2, 3] and table.text.tolist() == ["A", " b", "\n"]
    np.testing.assert_allclose(table.calm, [0, 1, 2])
    np.testing.assert_allclose(table.low, [2.8, -1.2, 0.4])
    np.testing.assert_allclose(table.high, [3.2, -0.8, 0.6])
    assert webpage.timeline(rows[:0], "calm").empty
    with pytest.raises(BadInput, match="'glad' was not read; choose from: calm, sad"):
        webpage.timeline(rows, "glad")


def test_alarms_are_listed_in_order_with_their_tokens(rows):
    assert webpage.alarms(rows).to_numpy().tolist() == [
        [2, " b", "calm above 0.5", "stop"],
        [2, " b", "sad up by 1", "mark"],
        [3, "\n", "a: b", "steer"],
    ]
    assert webpage.alarms(rows[:1]).empty


def test_a_place_is_the_mean_of_the_ratings_by_positive_z():
    ratings = np.array([[8.0, 3.0], [2.0, 5.0], [np.nan, 9.0]])
    z = [[1, 0, 50], [1, 1, 0], [3, 1, -4], [2, -9, 0], [-1, -1, 2]]
    found = webpage.places(z, ratings)
    expected = [[8, 3], [5, 4], [6.5, 3.5], [8, 3], [np.nan, np.nan]]
    np.testing.assert_allclose(found, expected)


def test_ratings_that_do_not_fit_the_readings_are_refused():
    for z, ratings in (([[1, 2]], [[1, 2]]), ([1, 2], [[1, 2]] * 2), ([[1, 2]], [1, 2])):
        with pytest.raises(BadInput, match="do not fit"):
            webpage.places(z, ratings)


def test_names_keep_clear_of_each_other_and_of_the_frame():
    size = (200, 100)
    assert webpage.name_sides([[50, 50]], ["calm"], size) == [0]
    assert webpage.name_sides([[195, 50]], ["calm"], size) == [1], "no room on the right"
    assert webpage.name_sides([[50, 50], [45, 50]], ["calm", "sad"], size) == [0, 1]
    crowd = webpage.name_sides([[50, 50]] * 6, ["calm"] * 6, size)
    assert sorted(crowd[:4]) == [0, 1, 2, 3] or None in crowd, "one name a side"
    assert crowd[4:] == [None, None]


def test_watched_words_without_ratings_are_named_as_such():
    assert webpage._Plane(["calm", "alarmed"]).unrated == ["alarmed"]
    assert webpage._Plane(["alarmed"]).unrated == ["alarmed"], "nothing to draw, no error"


# --- the server ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(smollm):
    stories = corpus.load_stories("plain", topics=1, emotions=EMOTIONS)
    quiet = corpus.load_neutral(limit=8).text.tolist()
    vectors = EmotionVectors.fit(
        tracing.pooled_residuals(smollm, stories.text.tolist(), MeanFrom(10)),
        stories.emotion.tolist(),
        tracing.pooled_residuals(smollm, quiet, MeanFrom(20)),
        topics=stories.topic.tolist(),
        provenance=Provenance(
            smollm.identity.name, smollm.identity.weights, smollm.identity.tokenizer, *"cn", 10, 0.5
        ),
    )
    baseline = calibrate(smollm, vectors, EMOTIONS, texts=quiet)
    return EmotionMonitor(smollm, vectors, baseline, window=4)


def wait_for(succeeds):
    end = time.monotonic() + PATIENCE / 1000
    while True:
        try:
            return succeeds()
        except (OSError, AssertionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_serve_says_where_and_ends_with_ctrl_c_even_during_a_reply(watched, capsys):
    # before any browser is started, whose loop would run in this thread as well
    found, replies = [], []

    def interrupt():
        wait_for(lambda: socket.create_connection((webpage.ADDRESS, port)).close())
        # all of 127.* would answer for 0.0.0.0
        found.append(socket.socket().connect_ex(("127.0.0.2", port)))
        chat = [{"role": "user", "content": HELLO}]
        replies.append(webpage._Reply(watched, chat, {"max_new_tokens": 400}))
        while not replies[0].rows:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    port, before = webpage._free_port(0), signal.getsignal(signal.SIGINT)
    thread = Thread(target=interrupt)
    thread.start()
    webpage.serve(watched, port=port)
    thread.join()
    assert capsys.readouterr().out == f"Monitor at http://127.0.0.1:{port}, Ctrl-C ends\n"
    assert found == [errno.ECONNREFUSED]
    assert replies[0].over and 0 < len(replies[0].rows) < 200
    assert signal.getsignal(signal.SIGINT) is before


def test_a_port_that_cannot_be_had_is_refused():
    with socket.create_server((webpage.ADDRESS, 0)) as bound:
        port = bound.getsockname()[1]
        for number in (port, 99_999):
            with pytest.raises(BadInput, match=f"port {number} cannot be had; give another"):
                webpage.serve(None, port=number)


def test_without_panel_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "panel", None)
    spec = importlib.util.find_spec("emotion_concepts.webpage")
    with pytest.raises(EmotionConceptsError, match=r'pip install "emotion-concepts\[web\]"'):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


# --- the page ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(chromium):
    """One context for all, which loads the scripts of Panel once."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)
    return context


@pytest.fixture(scope="module")
def site(watched):
    """Address of the page, and the options that its next session will have."""
    port, options = webpage._free_port(0), {}
    lifetime = {
        "unused_session_lifetime_milliseconds": 2000,
        "check_unused_sessions_milliseconds": 200,
    }
    server = webpage._server(watched, port, options, threaded=True, start=True, **lifetime)
    wait_for(lambda: socket.create_connection((webpage.ADDRESS, port)).close())
    yield f"{webpage.ADDRESS}:{port}", options
    server.stop()


@pytest.fixture
def opened(browser, site, watched, monkeypatch):
    """Return a function that opens the page with rules; nothing may have gone wrong in the end."""
    troubles, (address, options) = [], site
    foreign = re.compile(rf"(?!(http|ws)://{re.escape(address)}/|data:|blob:)")

    def open_page(*rules, width=1200, scheme="light", max_new_tokens=TOKENS):
        monkeypatch.setattr(watched, "rules", rules)
        options["max_new_tokens"] = max_new_tokens
        page = browser.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.on("console", lambda m: m.type in ("error", "warning") and troubles.append(m.text))
        page.on("pageerror", lambda error: troubles.append(error.message))
        page.on("request", lambda r: foreign.match(r.url) and troubles.append(r.url))
        page.on("websocket", lambda w: foreign.match(w.url) and troubles.append(w.url))
        page.goto(f"http://{address}/")
        says(page, "The model waits for a message.")
        return page

    yield open_page
    for page in browser.pages:
        page.close()
    assert not troubles


def send(page, text):
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def says(page, text):
    expect(page.get_by_text(text)).to_be_visible(timeout=PATIENCE)


def shown_tokens(page):
    return page.locator(".ec-text span").all_text_contents()


def levels(page):
    return page.locator(".ec-text span").evaluate_all("all => all.map(span => span.className)")


def draws(page, name, expected):
    """Wait until a figure in the browser has the data."""
    code = "name => Object.fromEntries(Object.entries(Bokeh.documents[0].get_model_by_name(name)"

    def compare():
        data = page.evaluate(code + ".data).map(([k, v]) => [k, [...v]]))", name)
        for column, values in expected.items():
            np.testing.assert_allclose(data[column], values, atol=1e-6)

    wait_for(compare)


def generated(model, *turns):
    roles = ["user", "assistant"] * len(turns)
    chat = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    return chat, tracing.generate(model, [model.chat_prompt(chat)], max_new_tokens=TOKENS)[0]


def test_a_reply_is_shown_as_it_is_generated_and_read(opened, watched, smollm):
    page = opened(Above("desperate", -99.0), Rise("calm", 99.0))
    expect(page.locator(".bk-Figure canvas").first).to_be_visible()
    assert page.locator(".bk-Figure").count() == 2
    says(page, "None in this reply. Watched for: desperate above -99; calm up by 99.")
    send(page, HELLO)
    says(page, f"The reply has {TOKENS} tokens, the most")

    chat, reply = generated(smollm, HELLO)
    assert "".join(shown_tokens(page)).replace("↵\n", "\n") == reply
    turns = page.locator(".turn").all_inner_texts()
    assert turns == [f"You\n{HELLO}", f"Model\n{reply.strip()}"]

    readings = list(watched.stream(chat, max_new_tokens=TOKENS))
    rows = pd.DataFrame([reading.row() for reading in readings])
    means = webpage.timeline(rows, "calm")
    draws(page, "means", means.drop(columns="text"))
    ratings = corpus.emotions().loc[list(EMOTIONS), webpage.RATINGS]
    valence, arousal = webpage.places(means[list(EMOTIONS)], ratings).T
    assert np.isfinite(valence).any()
    draws(page, "path", {"valence": valence, "arousal": arousal})
    last = np.flatnonzero(np.isfinite(valence))[-1]
    says(page, f"Token {last + 1}: valence {valence[last]:.1f}, arousal {arousal[last]:.1f}.")
    says(page, f"Token 4 ({readings[3].text!r}): desperate above -99. It is marked")
    draws(page, "alarms", {"token": [4]})
    assert page.get_by_text("calm up by 99").count() == 0

    before = levels(page)
    page.get_by_label("Emotion").select_option("desperate")
    says(page, "desperate in the last reply")
    nearest = [f"{'n' if z < -0.5 else 'p'}{min(4, round(abs(z)))}" for z in rows.z_desperate]
    assert levels(page) == nearest != before
    draws(page, "means", {"low": rows.mean_desperate - rows.error_desperate})

    page.get_by_label("Message").fill("And who lives there?")
    page.get_by_role("button", name="Send").click()
    says(page, "The model writes")
    says(page, f"The reply has {TOKENS} tokens, the most")
    _, second = generated(smollm, HELLO, reply, "And who lives there?")
    assert "".join(shown_tokens(page)).replace("↵\n", "\n") == second, "it knows the chat so far"

    page.get_by_role("button", name="New chat").click()
    says(page, "No message yet.")
    says(page, "There is no reply yet.")
    expect(page.locator(".turn")).to_have_count(0)
    draws(page, "means", {"token": []})


def test_pages_take_turns_and_a_stopped_reply_or_a_closed_window_frees_the_model(opened):
    first, second = opened(max_new_tokens=400), opened(max_new_tokens=400)
    send(first, "Tell me a long story about a boat.")
    expect(first.locator(".ec-text span").first).to_be_visible()
    send(second, HELLO)
    says(second, "The model is busy with another reply; yours begins when that one is done.")
    assert shown_tokens(second) == []
    first.close()
    expect(second.locator(".ec-text span").first).to_be_visible(timeout=PATIENCE)
    second.get_by_role("button", name="Stop").click()
    says(second, "You stopped the reply after")
    assert 0 < len(shown_tokens(second)) < 200


def test_what_goes_wrong_is_said_and_the_page_stays_usable(opened):
    def fail(reading):
        raise RuntimeError(f"no <lamp> at {reading.position}")

    page = opened(Above("calm", -99.0, then=fail))
    page.get_by_label("Message").fill("  ")
    page.get_by_role("button", name="Send").click()
    says(page, "message 0 is empty; fill it or leave it out")
    send(page, HELLO)
    expect(page.get_by_role("alert")).to_contain_text("RuntimeError: no <lamp> at ")
    assert len(shown_tokens(page)) == 3, "what was read before stays"
    send(page, "Go on.")
    expect(page.locator(".turn")).to_have_count(4)


def test_an_alarm_can_end_the_reply_and_a_narrow_window_shows_all_of_it(opened):
    page = opened(Above("calm", -99.0, then="stop"), width=390)
    send(page, "W" * 200)
    says(page, "An alarm ended the reply after 4 tokens.")
    says(page, "calm above -99. The reply was ended.")
    whole = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(whole) <= 0
    for locator in (page.locator(".bk-Figure"), page.locator(".turn"), page.get_by_role("button")):
        for box in (part.bounding_box() for part in locator.all()):
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_the_page_is_light_or_dark_as_the_system_is_and_labels_its_inputs(opened):
    page = opened()
    for role, name in (("textbox", "Message"), ("combobox", "Emotion")):
        expect(page.get_by_role(role)).to_have_count(1)
        expect(page.get_by_role(role, name=name)).to_be_visible()
    assert page.get_by_role("button").all_inner_texts() == ["Send", "Stop", "New chat"]
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ink, paper = page.locator("h1").evaluate(COLOURS)
        assert (ink < paper) == (scheme == "light")


def test_styles_come_from_this_server_even_where_a_session_begins_late(watched):
    document = Document()
    with set_curdoc(document):
        webpage.build(watched).server_doc(document)
    sheets = [x for root in document.roots for x in root.select({"type": ImportedStyleSheet})]
    assert sheets and not [sheet.url for sheet in sheets if "://" in sheet.url]
