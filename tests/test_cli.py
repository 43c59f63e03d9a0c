"""The command as its user types it: in a terminal, through pipes, with wrong input."""

import dataclasses
import io
import json
import os
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pexpect
import pytest

from emotion_concepts import audit, cli, contexts, corpus, models, prepare, tracing
from emotion_concepts.assistant_prompts import load_assistant_prompts
from emotion_concepts.cache import cache_dir
from emotion_concepts.errors import BadInput, UnknownEmotion
from emotion_concepts.monitor import Above, EmotionMonitor, Lead, Rise, calibrate
from emotion_concepts.tracing import MeanFrom
from emotion_concepts.vectors import EmotionVectors, Provenance

model = pytest.mark.model
WATCH = "desperate,calm"
LAMP = "What is a lighthouse for?"
CHAT = [{"role": "user", "content": LAMP}, {"role": "assistant", "content": "It warns ships."}]

# --- alarms ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("desperate>3", Above("desperate", 3.0)),
        (" desperate > 2.5 ", Above("desperate", 2.5)),
        ("calm>-1", Above("calm", -1.0)),
        ("desperate>3 for 5", Above("desperate", 3.0, tokens=5)),
        ("desperate+2", Rise("desperate", 2.0)),
        ("on edge + 0.5", Rise("on edge", 0.5)),
        ("desperate-calm>2", Lead("desperate", "calm", 2.0)),
        ("on edge - at ease > 1", Lead("on edge", "at ease", 1.0)),
        ("grief-stricken>1", Above("grief-stricken", 1.0)),
        ("self-critical-self-confident>1", Lead("self-critical", "self-confident", 1.0)),
    ],
)
def test_an_alarm_is_the_rule_that_it_says(text, rule):
    assert cli.parse_alarm(text) == rule


@pytest.mark.parametrize(
    ("text", "error", "problem"),
    [
        ("", BadInput, "'' cannot be read; write it like 'desperate>3'"),
        ("desperate", BadInput, "cannot be read"),
        ("desperate>", BadInput, "cannot be read"),
        ("desperate<3", BadInput, "cannot be read"),
        ("desperate>much", BadInput, "cannot be read"),
        ("desperate>nan", BadInput, "cannot be read"),
        ("desperate+2 for 5", BadInput, "cannot be read"),
        ("desperate-calm+2", BadInput, "cannot be read"),
        ("desperate-calm>2 for 5", BadInput, "cannot be read"),
        ("desperate>3 for 0", BadInput, "at least one token"),
        ("desprate>3", UnknownEmotion, "'desprate' is not one.*did you mean desperate"),
        ("desprate-calm>3", UnknownEmotion, "'desprate' is not one"),
        ("self-critcal+1", UnknownEmotion, "'self-critcal' is not one.*self-critical"),
    ],
)
def test_an_alarm_that_means_nothing_is_refused(text, error, problem):
    with pytest.raises(error, match=problem):
        cli.parse_alarm(text)


# --- wrong input, before any model is loaded ---------------------------------------------------


@pytest.fixture
def refused(capsys):
    """Run the command, and return the one sentence that it fails with."""

    def run(*arguments, status=1):
        capsys.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == status
        out, err = capsys.readouterr()
        said = [line for line in err.splitlines() if not line.startswith("loading ")]
        assert out == "" and len(said) == 1 and said[0].startswith("emotion-concepts: ")
        return said[0]

    return run


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.md", None, "missing.md cannot be read: No such file"),
        ("", None, "cannot be read: Is a directory"),
        ("empty.txt", b" \n", "empty.txt is empty"),
        ("binary.md", b"\x89PNG\xff\x00", "binary.md is not UTF-8 text"),
        ("chat.json", b"[{", r"chat.json is not JSON: .*line 1 column 3"),
        ("deep.json", b"[" * 100_000, "deep.json is not JSON"),
        ("chat.json", b'{"role": "user"}', "chat.json holds no list of messages"),
        ("chat.json", b'["Go on."]', "chat.json holds no list of messages"),
    ],
)
def test_files_that_hold_no_prompt_are_reported_in_a_sentence(
    refused, tmp_path, name, content, says
):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert re.search(says, refused("audit", path))
    good = tmp_path / "good.txt"
    good.write_text(LAMP)
    assert re.search(says, refused("audit", good, "--against", path))
    if name == "missing.md" or name.endswith(".json"):
        assert re.search(says, refused("monitor", "--transcript", path))


def test_options_that_cannot_be_followed_are_reported_before_the_model_is_loaded(
    refused, tmp_path, monkeypatch
):
    monkeypatch.setattr(models, "load_model", None)
    prompt, chat = tmp_path / "p.txt", tmp_path / "chat.json"
    prompt.write_text(LAMP)
    chat.write_text(json.dumps(CHAT))
    no_vectors = tmp_path / "no.safetensors"
    no_vectors.write_text("{}")
    for arguments, says in (
        (("monitor", "--watch", "calmm"), "'calmm' is not one of the 171.*did you mean calm"),
        (("monitor", "--watch", " ,"), "at least one emotion"),
        (("monitor", "--alarm", "calm=2"), "'calm=2' cannot be read"),
        (("monitor", "--vectors", no_vectors), "could not be read as a vectors file"),
        (("monitor", "--on-alarm", "stop"), "what an --alarm sets off; give one"),
        (("monitor", "--csv", "x.csv"), "--csv writes the readings of a --transcript"),
        (("monitor", "--log", "x", "--transcript", chat), "those of a --transcript go to --csv"),
        (("monitor", "--log", tmp_path), "is a folder; name a file"),
        (("audit", prompt, "--html", tmp_path), "is a folder; name a file"),
        (("audit", prompt, "--csv", prompt / "x.csv"), "p.txt"),
        (("audit", prompt, "--watch", "calm,happi"), "'happi' is not one"),
        (("audit", prompt, "--contexts", "1"), "at least 2 tasks, or 0 for none"),
    ):
        assert re.search(says, refused(*arguments)), arguments


def test_the_web_page_without_its_package_says_what_to_install(refused, monkeypatch):
    monkeypatch.delitem(sys.modules, "emotion_concepts.webpage", raising=False)
    monkeypatch.delattr("emotion_concepts.webpage", raising=False)
    monkeypatch.setitem(sys.modules, "panel", None)
    assert 'pip install "emotion-concepts[web]"' in refused("monitor", "--web")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: COMMAND"),
        (["sing"], "invalid choice: 'sing'"),
        (["audit"], "required: PROMPT"),
        (["monitor", "--max-new-tokens", "0"], "0 is not a number from 1 up"),
        (["monitor", "--temperature", "nan"], "nan is not a number from 0 up"),
        (["monitor", "--temperature", "-1"], "-1 is not a number from 0 up"),
        (["monitor", "--window", "few"], "invalid number value: 'few'"),
        (["monitor", "--window", "0"], "0 is not a number from 1 up"),
        (["audit", "x", "--fillers", "1"], "1 is not a number from 2 up"),
        (["monitor", "--on-alarm", "cry"], "invalid choice: 'cry'"),
        (["monitor", "--web", "--transcript", "x"], "not allowed with"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_met_with_the_usage(capsys, arguments, says):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_help_names_every_option(capsys):
    for arguments, words in (
        ([], ["monitor", "audit"]),
        (["monitor"], ["--alarm", "desperate-calm>2", "--on-alarm {mark,stop,calm}", "--web"]),
        (["audit"], ["PROMPT", "--against", "--fillers", "--html", "default: 4"]),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, "--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in words)


def test_what_is_watched_by_default_are_emotions():
    watch = (*audit.WATCH, *cli.MORE)
    assert corpus.check_emotions(watch) == watch and len(set(watch)) == len(watch)


# --- text and bars -----------------------------------------------------------------------------


@model
def test_a_character_of_several_tokens_is_printed_whole_and_once(smollm):
    text = "Olá 🦜 日本, naïve!"
    tokens = smollm.tokenizer(text)["input_ids"]
    found = list(cli.pieces(smollm.tokenizer, tokens))
    assert "".join(found) == text and len(found) == len(tokens)
    assert "" in found and not any("\ufffd" in piece for piece in found)
    cut = "".join(cli.pieces(smollm.tokenizer, tokens[:3]))  # in the middle of the parrot
    assert cut == "Olá"


# --- a chat ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(smollm, tmp_path_factory):
    """A cache folder with the weights, vectors of four emotions, and their baselines.

    Few neutral texts stand for all of them, since the model reads those in minutes.
    """
    folder = tmp_path_factory.mktemp("home")
    (folder / "models").symlink_to(cache_dir() / "models")
    stories = corpus.load_stories("plain", topics=1, emotions=audit.WATCH)
    quiet = corpus.load_neutral(limit=3).text.tolist()
    about = smollm.identity
    vectors = EmotionVectors.fit(
        tracing.pooled_residuals(smollm, stories.text.tolist(), MeanFrom(10)),
        stories.emotion.tolist(),
        tracing.pooled_residuals(smollm, quiet, MeanFrom(20)),
        topics=stories.topic.tolist(),
        provenance=Provenance(about.name, about.weights, about.tokenizer, *"cn", 10, 0.5),
    )
    vectors.save(folder / "v.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "cache_dir", lambda: folder)
        patch.setattr(
            prepare, "calibrate", lambda *a, **kw: calibrate(*a, **{**kw, "texts": quiet[:2]})
        )
        prepare.prepared_baseline(smollm, vectors, WATCH.split(","), progress=False)
    return folder


@pytest.fixture
def monitor_command(home, smollm, monkeypatch):
    """Run `monitor` in this process on the model that is already loaded; return the exit status."""
    monkeypatch.setattr(models, "load_model", lambda name, dtype: smollm)
    monkeypatch.setattr(prepare, "cache_dir", lambda: home)

    def run(*arguments, typed=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        fixed = ["monitor", "--vectors", home / "v.safetensors", "--watch", WATCH]
        return cli.main([str(argument) for argument in [*fixed, *arguments]])

    return run


def answers(smollm, folder, chats, **options):
    prompts = [smollm.chat_prompt(chat) for chat in chats]
    return tracing.generate(smollm, prompts, cache=folder, **options)


def replies(smollm, log):
    """Return the text of each reply in a log, as its tokens spell it."""
    turns = pd.read_json(log, lines=True).groupby("began_at").token
    return [smollm.tokenizer.decode(turn.tolist(), skip_special_tokens=True) for _, turn in turns]


@model
def test_a_chat_in_a_terminal(home, smollm, tmp_path):
    log = tmp_path / "logs" / "chat.jsonl"
    options = ["--vectors", home / "v.safetensors", "--watch", WATCH, "--dtype", "float32"]
    options += ["--max-new-tokens", "10", "--alarm", "calm>-99", "--log", log]
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    environment |= {"EMOTION_CONCEPTS_CACHE": str(home), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "emotion_concepts.cli", "monitor", *map(str, options)],
        env=environment,
        encoding="utf-8",
        dimensions=(40, 120),
        timeout=120,
    )
    terminal.expect_exact("layer 19: desperate, calm\r\n/reset begins a new chat, /quit ends")
    for line in (LAMP, "Go on."):
        terminal.expect_exact("\n> ")
        terminal.sendline(line)
        terminal.expect_exact("highest over 8 tokens")
        shown = terminal.before
        assert "\x1b[31m! calm above -99: mark\x1b[0m" in shown
        for _ in WATCH.split(","):
            terminal.expect(r"(desperate|calm) [^\n]*\d ± \d\.\d\d\r\n")
    terminal.expect_exact("\n> ")
    terminal.sendline("/reset")
    terminal.expect_exact("a new chat")
    terminal.expect_exact("\n> ")
    terminal.sendline("/quit")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    found = replies(smollm, log)
    first = [{"role": "user", "content": LAMP}]
    second = [
        *first,
        {"role": "assistant", "content": found[0]},
        {"role": "user", "content": "Go on."},
    ]
    assert found == answers(smollm, tmp_path, [first, second], max_new_tokens=10)
    words = re.sub(r"\x1b\[\d+m|! calm.*|\s", "", shown)
    assert re.sub(r"\s", "", found[1]) in words


class Screen(io.StringIO):
    """A terminal, or a file, that knows what had been written whenever it was flushed."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal, self.flushed = terminal, []

    def isatty(self):
        return self.terminal

    def flush(self):
        self.flushed.append(self.getvalue())


@model
def test_through_pipes_there_are_no_colours_and_each_token_comes_at_once(
    monitor_command, smollm, tmp_path, monkeypatch
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", screen := Screen(terminal=False))
    log = tmp_path / "chat.jsonl"
    options = ["--max-new-tokens", "9", "--alarm", "calm>-99", "--alarm", "calm+-99"]
    options += ["--temperature", "1", "--seed", "5", "--log", log]
    assert monitor_command(*options, typed=f"{LAMP}\n\n/reset\n{LAMP}\n") == 0
    shown = screen.getvalue()
    assert "\x1b" not in shown and "\r" not in shown and "> " not in shown.split("ends")[1]
    [reply] = answers(smollm, tmp_path, [CHAT[:1]], max_new_tokens=9, temperature=1.0, seeds=[5])
    assert replies(smollm, log) == [reply, reply], "after /reset the chat begins again"
    table = pd.read_json(log, lines=True)
    assert table.turn.tolist() == [1] * 18
    start = shown.index("ends\n") + len("ends\n")
    alarm = shown.index("\n! calm above -99: mark\n! calm up by -99: mark\n")
    spoken = smollm.tokenizer.decode(table.token.tolist()[:8])
    assert shown[start:alarm] == spoken, "the alarms stand behind the eighth token"
    assert {text[start:] for text in screen.flushed} >= {
        smollm.tokenizer.decode(table.token.tolist()[:n]) for n in range(1, 9)
    }


@model
def test_the_strip_is_what_the_log_says_strongest_first(monitor_command, capsys, tmp_path):
    log = tmp_path / "chat.jsonl"
    assert monitor_command("--max-new-tokens", "6", "--window", "4", "--log", log, typed=LAMP) == 0
    table, shown = pd.read_json(log, lines=True), capsys.readouterr().out.splitlines()
    head = next(n for n, line in enumerate(shown) if line.endswith("highest over 4 tokens"))
    means = {name: table[f"z_{name}"].mean() for name in ("desperate", "calm")}
    strongest = sorted(means, key=means.get, reverse=True)
    for name, line in zip(strongest, shown[head + 1 :], strict=False):
        full = table[3:]
        top = full.loc[full[f"mean_{name}"].idxmax()]
        numbers = f"{means[name]:+.2f}  {top[f'mean_{name}']:+.2f} ± {top[f'error_{name}']:.2f}"
        assert line.index(numbers) + 5 == shown[head].index("mean z") + len("mean z")
        assert line.split()[0] == name and line.endswith(numbers)
        assert (line.count("█") > 0) == (means[name] >= 0.5 - 1 / 32)


@model
def test_no_color_is_respected(monitor_command, monkeypatch):
    shown = {}
    for value in ("", "1"):
        monkeypatch.setenv("NO_COLOR", value)
        monkeypatch.setattr(sys, "stdout", Screen(terminal=True))
        assert monitor_command("--max-new-tokens", "2", typed=LAMP) == 0
        shown[value] = sys.stdout.getvalue()
    assert "\x1b[" in shown[""] and "\x1b" not in shown["1"]
    assert re.sub(r"\x1b\[\d+m", "", shown[""]) == shown["1"]


@model
def test_an_alarm_can_end_the_reply_or_steer_it(monitor_command, smollm, capsys, tmp_path):
    plain, stopped, steered = (tmp_path / name for name in ("plain", "stopped", "steered"))
    alarm = ["--max-new-tokens", "9", "--window", "3", "--alarm", "calm>-99"]
    assert monitor_command(*alarm, "--log", plain, typed=LAMP) == 0
    assert monitor_command(*alarm, "--on-alarm", "stop", "--log", stopped, typed=LAMP) == 0
    assert re.search("\n! calm above -99: stop\n +mean z", capsys.readouterr().out)
    calm = ["--on-alarm", "calm", "--calm-strength", "0.6"]
    assert monitor_command(*alarm, *calm, "--log", steered, typed=LAMP) == 0
    assert "! calm above -99: steer" in capsys.readouterr().out
    plain, stopped, steered = (pd.read_json(x, lines=True) for x in (plain, stopped, steered))
    assert len(plain) == 9 and stopped.token.tolist() == plain.token.tolist()[:3]
    assert steered.token.tolist()[:4] == plain.token.tolist()[:4]
    assert steered.z_calm[4:].mean() > plain.z_calm[4:].mean() + 2


@model
def test_a_chat_without_a_reply_goes_on_without_the_message(monitor_command, capsys, monkeypatch):
    given = []
    monkeypatch.setattr(
        EmotionMonitor, "stream", lambda self, chat, **_kw: given.append(list(chat)) or iter(())
    )
    assert monitor_command(typed=f"{LAMP}\nGo on.\n") == 0
    assert capsys.readouterr().out.count("no reply") == 2
    assert [[message["content"] for message in chat] for chat in given] == [[LAMP], ["Go on."]]


@model
def test_ctrl_c_ends_quietly(monitor_command, capsys, monkeypatch):
    def interrupted(*_args, **_kw):
        raise KeyboardInterrupt

    monkeypatch.setattr(EmotionMonitor, "stream", interrupted)
    assert monitor_command(typed=LAMP) == 130
    assert "Traceback" not in "".join(capsys.readouterr())


@model
def test_an_emotion_with_an_alarm_is_watched_as_well(monitor_command, monkeypatch):
    made = []
    monkeypatch.setattr(
        prepare,
        "prepared_baseline",
        lambda model, vectors, watch, layer: made.append(watch) or 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        monitor_command("--alarm", "afraid-calm>2", "--alarm", "frustrated+1")
    assert made == [["desperate", "calm", "afraid", "frustrated"]]


@model
def test_the_web_page_is_given_the_monitor(monitor_command, monkeypatch):
    served = []
    page = SimpleNamespace(serve=lambda monitor, **options: served.append((monitor, options)))
    monkeypatch.setitem(sys.modules, "emotion_concepts.webpage", page)
    monkeypatch.setattr("emotion_concepts.webpage", page, raising=False)
    assert monitor_command("--web", "--port", "5123", "--max-new-tokens", "7", "--window", "5") == 0
    [(monitor, options)] = served
    assert isinstance(monitor, EmotionMonitor) and monitor.window == 5
    assert options == {"port": 5123, "max_new_tokens": 7, "temperature": 0.0}


@model
def test_settings_that_the_monitor_refuses_are_reported(monitor_command, refused, home, tmp_path):
    for arguments, says in (
        (("--window", "65"), "window holds 1 to 64 tokens, not 65"),
        (("--layer", "30"), "layers 0 to 29, not 30"),
        (("--watch", "joyful"), "no vector for 'joyful'"),
    ):
        assert re.search(
            says,
            refused("monitor", "--vectors", home / "v.safetensors", "--watch", WATCH, *arguments),
        )
    vectors = EmotionVectors.load(home / "v.safetensors")
    about = dataclasses.replace(vectors.provenance, weights="other")
    other = dataclasses.replace(vectors, provenance=about).save(tmp_path / "o.safetensors")
    said = refused("monitor", "--vectors", other, "--watch", WATCH)
    assert "fit them again on this model" in said


# --- a finished chat ---------------------------------------------------------------------------


@model
def test_a_transcript_is_printed_turn_by_turn_and_its_tokens_written(
    monitor_command, capsys, tmp_path
):
    chat, out = tmp_path / "chat.json", tmp_path / "new" / "tokens.csv"
    chat.write_text(json.dumps(CHAT))
    options = ["--window", "3", "--alarm", "desperate-calm>-99", "--csv", out]
    assert monitor_command("--transcript", chat, *options) == 0
    table = pd.read_csv(out, keep_default_na=False)
    parts = re.split(r"^(?=\d (?:user|assistant): )", capsys.readouterr().out, flags=re.M)[1:]
    for turn, (message, part) in enumerate(zip(CHAT, parts, strict=True)):
        rows = table[(table.turn == turn) & (table.role == message["role"])]
        assert "".join(rows.text) == message["content"]
        assert part.startswith(f"{turn} {message['role']}: {message['content']}\n")
        for name in WATCH.split(","):
            [line] = [line for line in part.splitlines() if line.startswith(f"  {name}")]
            assert f" {rows[f'z_{name}'].mean():+.2f}  " in line
            assert f"  {rows[f'mean_{name}'][2:].max():+.2f} ± " in line
        assert part.count("! desperate -99 above calm: mark, at its token 3\n") == 1
    fired = table[table.alarms != ""]
    assert fired.alarms.tolist() == ["desperate -99 above calm: mark"] * 2
    np.testing.assert_array_equal(fired.turn, [0, 1])


@model
def test_a_transcript_that_holds_nothing_is_refused(monitor_command, capsys, tmp_path):
    chat = tmp_path / "chat.json"
    for messages, says in (([], "list of messages"), ([{"role": "usr"}], "did you mean user")):
        chat.write_text(json.dumps(messages))
        assert monitor_command("--transcript", chat) == 1
        assert says in capsys.readouterr().err


# --- an audit ----------------------------------------------------------------------------------


@pytest.fixture
def audit_command(home, smollm, monkeypatch):
    few = load_assistant_prompts().query("set == 'neutral'").head(8)
    monkeypatch.setattr(audit, "load_assistant_prompts", lambda: few)
    monkeypatch.setattr(models, "load_model", lambda name, dtype: smollm)
    fixed = ["--vectors", home / "v.safetensors", "--fillers", "2", "--contexts", "0"]
    return lambda *arguments: cli.main(["audit", *map(str, [*fixed, *arguments])])


@model
def test_an_audit_of_a_file_and_of_standard_input(
    audit_command, home, smollm, capsys, tmp_path, monkeypatch
):
    prompt, rewrite = tmp_path / "prompt.md", tmp_path / "rewrite.json"
    text = "Sort the cards. Time is up, and everything is lost."
    calmer = [{"role": "user", "content": "Sort the cards."}]
    prompt.write_text(f"\ufeff{text}\n", encoding="utf-8")
    rewrite.write_text(json.dumps(calmer))
    out = ["--html", tmp_path / "new" / "page.html", "--csv", tmp_path / "spans.csv"]
    assert audit_command(prompt, "--against", rewrite, *out) == 0
    vectors = EmotionVectors.load(home / "v.safetensors")
    report = audit.audit_context(text, smollm, vectors, rewrite=calmer, fillers=2)
    assert capsys.readouterr().out == report.summary() + "\n"
    assert out[1].read_text(encoding="utf-8") == report.html()
    back = pd.read_csv(out[3])
    pd.testing.assert_frame_equal(back, report.table, check_dtype=False)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert audit_command("-", "--watch", "calm") == 0
    alone = audit.audit_context(text, smollm, vectors, watch="calm", fillers=2)
    assert capsys.readouterr().out == alone.summary() + "\n"


@model
def test_an_audit_says_which_contexts_a_prompt_is_like(
    audit_command, capsys, tmp_path, monkeypatch
):
    texts = contexts.level_texts(2)
    short = texts.assign(text=texts.text.str.split().str[::8].str.join(" "))
    monkeypatch.setattr(audit, "level_texts", {2: short}.get)
    (tmp_path / "prompt.txt").write_text("Sort the cards.")
    assert audit_command(tmp_path / "prompt.txt", "--contexts", "2") == 0
    said = capsys.readouterr().out
    assert "mean z (spread) of 2 tasks" in said
    assert re.search(r"the prompt to (plain|pressure|exit|both) ", said)


@model
def test_what_an_audit_refuses_is_one_sentence(audit_command, refused, capsys, tmp_path):
    prompt, chat = tmp_path / "prompt.txt", tmp_path / "chat.json"
    for content, arguments, says in (
        ("word " * 9000, [], r"comes to 9\d\d\d tokens.* 8192 at most; shorten it"),
        ("Go on.", ["--layer", "30"], "layers 0 to 29, not 30"),
        ("Go on.", ["--watch", "joyful"], "no vector for 'joyful'"),
    ):
        prompt.write_text(content)
        assert audit_command(prompt, *arguments) == 1
        said = capsys.readouterr().err.replace("loading smollm2-135m-instruct\n", "")
        assert re.fullmatch(rf"emotion-concepts: .*{says}.*\n", said)
    chat.write_text(json.dumps([{"role": "robot", "content": "Go on."}]))
    assert audit_command(chat) == 1
    assert "role 'robot'; choose from" in capsys.readouterr().err
