"""The command ``emotion-concepts``: a chat with its emotions under each reply; a prompt's audit.

Modules that import torch are imported by what needs them, so that help and wrong options come at
once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_concepts.errors import BadInput, EmotionConceptsError

if TYPE_CHECKING:
    import pandas as pd

    from emotion_concepts.monitor import EmotionMonitor, Rule
    from emotion_concepts.tracing import TracedModel
    from emotion_concepts.vectors import EmotionVectors

NAME = "emotion-concepts"
MORE = ("happy", "angry", "sad")  # that a chat watches beside `audit.WATCH`
SHOWN = 6
ALARM = re.compile(
    r"\s*(?P<who>.+?)\s*(?P<kind>[>+])\s*(?P<z>-?\d+(\.\d+)?)(\s+for\s+(?P<tokens>\d+))?\s*"
)
ALARM_FORMS = "'desperate>3', 'desperate>3 for 5', 'desperate+2' or 'desperate-calm>2'"
BOLD, DIM, RED, CYAN = 1, 2, 31, 36


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit status.

    >>> with contextlib.redirect_stderr(sys.stdout):
    ...     main(["audit", "missing.txt"])
    emotion-concepts: missing.txt cannot be read: No such file or directory
    1
    """
    chosen = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows no block characters
    try:
        chosen.run(chosen)
    except (EmotionConceptsError, OSError) as error:
        print(f"{NAME}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130
    return 0


# --- the command line --------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME, description="Read emotion concepts in an open language model."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    both = argparse.ArgumentParser(add_help=False)
    both.add_argument(
        "--model", metavar="NAME", help="name, hub id, folder or .gguf (default: the packaged one)"
    )
    both.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    both.add_argument(
        "--vectors", type=Path, metavar="FILE", help="vectors to read with (default: made once)"
    )
    both.add_argument("--watch", metavar="LIST", help="emotions, as in desperate,calm")
    both.add_argument("--layer", type=int, metavar="N", help="default: at 2/3 of the depth")

    text = "chat, and see which emotions are active in each reply"
    monitor = commands.add_parser("monitor", parents=[both], help=text, description=text)
    monitor.set_defaults(run=_monitor)
    monitor.add_argument(
        "--window",
        type=_at_least(int, 1),
        default=8,
        metavar="N",
        help="tokens to average over (default: 8)",
    )
    monitor.add_argument(
        "--alarm",
        action="append",
        default=[],
        metavar="RULE",
        help=f"{ALARM_FORMS}; may be given again",
    )
    monitor.add_argument(
        "--on-alarm",
        choices=("mark", "stop", "calm"),
        default="mark",
        help="show it, end the reply, or steer towards calm (default: mark)",
    )
    monitor.add_argument(
        "--calm-strength",
        type=float,
        default=0.03,
        metavar="X",
        help="share of the residual norm (default: 0.03)",
    )
    monitor.add_argument("--log", type=Path, metavar="FILE", help="append readings as JSON lines")
    monitor.add_argument(
        "--max-new-tokens",
        type=_at_least(int, 1),
        default=200,
        metavar="N",
        help="length of a reply (default: 200)",
    )
    monitor.add_argument(
        "--temperature",
        type=_at_least(float, 0),
        default=0.0,
        metavar="T",
        help="of sampling (default: 0, the likeliest token)",
    )
    monitor.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of sampling (default: 0)"
    )
    instead = monitor.add_mutually_exclusive_group()
    instead.add_argument(
        "--transcript", type=Path, metavar="CHAT.json", help="read this finished chat instead"
    )
    instead.add_argument("--web", action="store_true", help="chat in a browser instead")
    monitor.add_argument(
        "--csv", type=Path, metavar="OUT", help="the transcript's readings, a row a token"
    )
    monitor.add_argument(
        "--port", type=int, default=0, metavar="N", help="of --web (default: a free one)"
    )

    text = "find the sentences of a prompt that load an emotion"
    audit = commands.add_parser("audit", parents=[both], help=text, description=text)
    audit.set_defaults(run=_audit)
    audit.add_argument(
        "prompt",
        metavar="PROMPT",
        help="text file (one user message), .json (a list of messages), or - for standard input",
    )
    audit.add_argument("--against", metavar="REWRITE", help="a second version, to compare")
    audit.add_argument(
        "--fillers",
        type=_at_least(int, 2),
        default=4,
        metavar="N",
        help="neutral sentences tried in each span's place (default: 4)",
    )
    audit.add_argument(
        "--contexts",
        type=_at_least(int, 0),
        default=12,
        metavar="N",
        help="tasks under pressure and without to compare with; 0: none (default: 12)",
    )
    audit.add_argument("--html", type=Path, metavar="OUT", help="write the report as a page")
    audit.add_argument("--csv", type=Path, metavar="OUT", help="write a row a span and emotion")
    return parser


def _at_least(kind: type, least: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not (math.isfinite(value) and value >= least):
            raise argparse.ArgumentTypeError(f"{text} is not a number from {least} up")
        return value

    return number


def parse_alarm(text: str) -> Rule:
    """Return the rule that an alarm stands for.

    Raises
    ------
    BadInput, UnknownEmotion

    Examples
    --------
    >>> str(parse_alarm("desperate>3 for 5"))
    'desperate above 3 for 5 tokens'
    >>> str(parse_alarm("desperate-calm > 2"))
    'desperate 2 above calm'
    """
    from emotion_concepts.corpus import EMOTIONS, check_emotions
    from emotion_concepts.monitor import Above, Lead, Rise

    if match := ALARM.fullmatch(text):
        who, kind, z, tokens = match.group("who", "kind", "z", "tokens")
        # a hyphen may belong to a name: grief-stricken
        ways = [(who[: m.start()].strip(), who[m.end() :].strip()) for m in re.finditer("-", who)]
        best = max([(who,), *ways], key=lambda names: sum(name in EMOTIONS for name in names))
        match kind, check_emotions(best), tokens:
            case ">", [emotion], _:
                return Above(emotion, float(z), int(tokens or 1))
            case ">", [emotion, other], None:
                return Lead(emotion, other, float(z))
            case "+", [emotion], None:
                return Rise(emotion, float(z))
    raise BadInput(f"the alarm {text!r} cannot be read; write it like {ALARM_FORMS}")


def _names(watch: str) -> list[str]:
    names = [name.strip() for name in watch.split(",") if name.strip()]
    if not names:
        raise BadInput("give --watch at least one emotion, as in --watch desperate,calm")
    return names


def _check_output(path: Path | None) -> None:
    """See before the work that its result can be written."""
    if path is None:
        return
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name a file to write to")
    path.parent.mkdir(parents=True, exist_ok=True)


def _read(source: str | Path) -> str:
    """Return the text of a file, or of standard input for "-"."""
    name = "standard input" if source == "-" else source
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        text = content.decode("utf-8-sig").strip()
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} is not UTF-8 text; save it as UTF-8") from error
    if not text:
        raise BadInput(f"{name} is empty; give it some text")
    return text


def _read_chat(path: str | Path) -> list[dict]:
    text = _read(path)
    try:
        chat = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from error
    if not isinstance(chat, list) or not all(isinstance(message, dict) for message in chat):
        raise BadInput(f"{path} holds no list of messages, each an object with role and content")
    return chat


def _read_prompt(source: str) -> str | list[dict]:
    return _read_chat(source) if source.endswith(".json") else _read(source)


def _prepared(args: argparse.Namespace, watch: Sequence[str]) -> tuple[TracedModel, EmotionVectors]:
    """Return the model and its vectors, which are checked before anything slow begins."""
    from emotion_concepts.corpus import check_emotions
    from emotion_concepts.models import DEFAULT_MODEL, load_model
    from emotion_concepts.prepare import prepared_vectors
    from emotion_concepts.vectors import EmotionVectors

    vectors, name = None, args.model or DEFAULT_MODEL
    if args.vectors is None:
        check_emotions(watch)
    else:
        vectors = EmotionVectors.load(args.vectors)
        vectors.select(watch)
    print(f"loading {name}", file=sys.stderr)
    model = load_model(name, dtype=args.dtype)
    if vectors is None:
        return model, prepared_vectors(model)
    vectors.check_model(model.identity)
    return model, vectors


# --- monitor -----------------------------------------------------------------------------------


def _monitor(args: argparse.Namespace) -> None:
    if args.csv and not args.transcript:
        raise BadInput("--csv writes the readings of a --transcript; those of a chat go to --log")
    if args.log and args.transcript:
        raise BadInput("--log takes the readings of a chat; those of a --transcript go to --csv")
    if args.on_alarm != "mark" and not args.alarm:
        raise BadInput("--on-alarm says what an --alarm sets off; give one, as in desperate>3")
    if args.web:
        from emotion_concepts import webpage  # before the work: its package may be missing
    for path in (args.log, args.csv):
        _check_output(path)
    finished = None if args.transcript is None else _read_chat(args.transcript)
    monitor = _make_monitor(args)
    reply = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature}
    if finished is not None:
        _show_transcript(monitor, finished, args.csv)
    elif args.web:
        webpage.serve(monitor, port=args.port, **reply)
    else:
        _chat(monitor, {**reply, "seed": args.seed})


def _make_monitor(args: argparse.Namespace) -> EmotionMonitor:
    from emotion_concepts.audit import WATCH
    from emotion_concepts.monitor import EmotionMonitor
    from emotion_concepts.prepare import prepared_baseline
    from emotion_concepts.steering import band, steer

    watch = (*WATCH, *MORE) if args.watch is None else _names(args.watch)
    rules = [parse_alarm(text) for text in args.alarm]
    watch = list(dict.fromkeys([*watch, *(name for rule in rules for name in rule.emotions)]))
    model, vectors = _prepared(args, watch)
    then = {"mark": None, "stop": "stop"}.get(args.on_alarm)
    if args.on_alarm == "calm":
        strength, middle = [args.calm_strength], band(vectors.n_layers)
        then = steer(vectors["calm"][None], strength, vectors.residual_norm, middle)
    rules = [replace(rule, then=then) for rule in rules]
    baseline = prepared_baseline(model, vectors, watch, layer=args.layer)
    options = {"window": args.window, "rules": rules, "log": args.log}
    return EmotionMonitor(model, vectors, baseline, **options)


def _chat(monitor: EmotionMonitor, options: dict) -> None:
    """Answer line after line, until the end of input or /quit."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (lets `input` edit its line)
    baseline, messages = monitor.baseline, []
    print(f"{baseline.identity.name}, layer {baseline.layer}: {', '.join(baseline.emotions)}")
    print("/reset begins a new chat, /quit ends")
    while True:
        try:
            line = input("\n> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            print()
            return
        if line == "/quit":
            return
        if line == "/reset":
            messages = []
            print("a new chat")
        elif line:
            messages.append({"role": "user", "content": line})
            if reply := _answer(monitor, messages, options):
                messages.append({"role": "assistant", "content": reply})
            else:
                messages.pop()
                print("(no reply; your message is left out of the chat)")


def _answer(monitor: EmotionMonitor, messages: Sequence[dict], options: dict) -> str:
    """Print the reply as it is generated, alarms where they fire, and the strip; return it."""
    import pandas as pd

    readings, reply = [], ""

    def tokens() -> Iterator[int]:
        for reading in monitor.stream(messages, **options):
            readings.append(reading)
            yield reading.token

    for piece in pieces(monitor.model.tokenizer, tokens()):
        reply += piece
        print(piece, end="", flush=True)
        if fired := [_paint(f"! {rule}: {rule.action}", RED) for rule in readings[-1].alarms]:
            print("", *fired, sep="\n", flush=True)
    if not (readings and readings[-1].alarms):
        print()
    if readings:
        _print_strip(pd.DataFrame([reading.row() for reading in readings]), monitor)
    return reply.strip() and reply


def pieces(tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """Yield what each token adds to the text; a character split over several comes with the last.

    Parameters
    ----------
    tokenizer : transformers tokenizer

    Examples
    --------
    >>> list(pieces(llm.tokenizer, llm.tokenizer("Calm 🌊.")["input_ids"]))
    ['C', 'alm', '', '', ' 🌊', '.']
    """
    ids, shown = [], ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if text.endswith("\ufffd"):
            yield ""
        else:
            yield text[len(shown) :]
            shown = text


def _show_transcript(monitor: EmotionMonitor, messages: Sequence[dict], csv: Path | None) -> None:
    table = monitor.transcript(messages)
    for turn, message in enumerate(messages):
        rows = table[(table.turn == turn) & (table.role != "template")]
        content = textwrap.shorten(message["content"], 80, placeholder=" ...")
        print(f"{turn} {_paint(message['role'], BOLD)}: {content}")
        _print_strip(rows, monitor)
        for row in rows[rows.alarms.str.len() > 0].itertuples():
            where = f"at its token {row.position - rows.position.iloc[0] + 1}"
            for alarm in row.alarms:
                print(_paint(f"! {alarm}, {where}", RED))
        print()
    if csv is not None:
        table.assign(alarms=table.alarms.str.join("; ")).to_csv(csv, index=False)


def _print_strip(rows: pd.DataFrame, monitor: EmotionMonitor) -> None:
    """Print the strongest emotions of one turn, a line each."""
    full = rows.iloc[monitor.window - 1 :] if len(rows) >= monitor.window else rows.tail(1)
    means = {name: rows[f"z_{name}"].mean() for name in monitor.baseline.emotions}
    strongest = sorted(means, key=means.get, reverse=True)[:SHOWN]
    width = max(map(len, strongest))
    head = f"{'mean z':>{width + 22}}  highest over {monitor.window} tokens"
    print(_paint(head, DIM))
    for name in strongest:
        top = full.loc[full[f"mean_{name}"].idxmax()]
        highest = f"{top[f'mean_{name}']:+.2f} ± {top[f'error_{name}']:.2f}"
        bar = _paint(f"{_bar(means[name]):<8}", CYAN)
        print(f"  {name:<{width}}  {bar}  {means[name]:+8.2f}  {highest}")


def _bar(z: float) -> str:
    """Return a block for half a standard deviation, at most eight; none below zero.

    >>> _bar(1.25), _bar(-1.0), _bar(9.0)
    ('██▌', '', '████████')
    """
    eighths = min(max(round(z * 16), 0), 64)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _paint(text: str, code: int) -> str:
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{code}m{text}\x1b[0m" if coloured else text


# --- audit -------------------------------------------------------------------------------------


def _audit(args: argparse.Namespace) -> None:
    if args.contexts == 1:
        raise BadInput("--contexts takes at least 2 tasks, or 0 for none, not 1")
    prompt = _read_prompt(args.prompt)
    rewrite = None if args.against is None else _read_prompt(args.against)
    for path in (args.html, args.csv):
        _check_output(path)
    from emotion_concepts.audit import WATCH, audit_context, context_levels

    watch = WATCH if args.watch is None else _names(args.watch)
    model, vectors = _prepared(args, watch)
    where, levels = {"watch": watch, "layer": args.layer}, None
    if args.contexts:  # their residual streams are kept, so that this takes a minute only once
        levels = context_levels(model, vectors, tasks=args.contexts, progress="contexts", **where)
    options = {"fillers": args.fillers, "levels": levels, "progress": "audit"}
    report = audit_context(prompt, model, vectors, rewrite=rewrite, **where, **options)
    print(report.summary())
    if args.html is not None:
        args.html.write_text(report.html(), encoding="utf-8")
    if args.csv is not None:
        report.table.to_csv(args.csv, index=False)


if __name__ == "__main__":
    sys.exit(main())
