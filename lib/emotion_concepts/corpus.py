"""Texts and words: the 171 emotions, the packaged stories and neutral texts, human ratings.

Everything comes back as a pandas table. `write_stories` is the paper's own method: a model writes
the corpus, and a filter keeps the emotion's name out of it. What a model makes of the texts is the
business of `tracing`; vectors and statistics live further on.
"""

from __future__ import annotations

import csv
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from tqdm import tqdm

from emotion_concepts.cache import digest
from emotion_concepts.errors import BadInput, UnknownEmotion, nearest

if TYPE_CHECKING:
    from emotion_concepts.tracing import TracedModel

DATA = files("emotion_concepts") / "data"
REGISTERS = ("literary", "plain")

# The paper averages a story from its 50th token on, once the emotion has had time to show. The
# packaged texts are far shorter (medians of 146, 72 and 170 tokens under SmolLM2's tokenizer), so
# about the opening seventh is left out instead.
SKIP = {"literary": 20, "plain": 10}
NEUTRAL_SKIP = 20

STORY_COLUMNS = ["emotion", "topic", "register", "batch", "text"]
# Small enough that a kill loses little, large enough to keep a GPU busy.
CELLS_A_CALL = 8


# --- the emotion words -------------------------------------------------------------------------


def emotions() -> pd.DataFrame:
    """Return the 171 emotion words in the paper's order, with clusters and human ratings.

    Returns
    -------
    DataFrame ``[171, 9]``, indexed by emotion
        cluster (Table 12); pleasure, arousal, dominance (Russell & Mehrabian 1977, -1..1, for the
        45 words of Fig 8); glasgow_valence, glasgow_valence_sd, glasgow_n, glasgow_arousal (1..9)
        and glasgow_rule, which says how the word was matched. Missing ratings are NaN.

    Examples
    --------
    >>> float(emotions().loc["happy", "pleasure"])
    0.81
    """
    return _emotions().copy()


@cache
def _emotions() -> pd.DataFrame:
    with (DATA / "emotions.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, index_col="emotion")


EMOTIONS: tuple[str, ...] = tuple(_emotions().index)

# The subset that most figures of the paper show.
TWELVE = (
    "happy",
    "inspired",
    "loving",
    "proud",
    "calm",
    "desperate",
    "angry",
    "guilty",
    "sad",
    "afraid",
    "nervous",
    "surprised",
)


def check_emotions(names: Iterable[str]) -> tuple[str, ...]:
    """Return `names` as a tuple if all are among the 171.

    Raises
    ------
    UnknownEmotion
        Names the first unknown word and the nearest known ones.

    Examples
    --------
    >>> check_emotions(["calm", "on edge"])
    ('calm', 'on edge')
    """
    names = _names(names, "emotions")
    for name in names:
        if name not in EMOTIONS:
            raise UnknownEmotion(f"{name!r} is not one of the 171 emotions; {_near(name)}")
    return names


def _near(name: object) -> str:
    return nearest(str(name), EMOTIONS)


def _names(values: Iterable[str], what: str) -> tuple[str, ...]:
    # a lone string would be taken letter by letter
    if isinstance(values, str):
        raise BadInput(f"{what} must be a list, not {values!r}; write [{values!r}]")
    return tuple(values)


def word_pairs() -> pd.DataFrame:
    """Return pairs of near and of opposite emotions, chosen by word meaning alone.

    Returns
    -------
    DataFrame
        With columns kind ("near" or "opposite"), a, b, why. Fixed before any vector was computed,
        to test the similarity structure of Fig 5.

    Examples
    --------
    >>> word_pairs().loc[0, ["kind", "a", "b"]].tolist()
    ['near', 'afraid', 'anxious']
    """
    with (DATA / "word_pairs.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def load_norms(path: str | Path, *, word: str, valence: str, arousal: str) -> pd.DataFrame:
    """Read human ratings of the emotion words from a file of your own.

    For norms that may not be passed on, such as Warriner et al. 2013 or the NRC VAD lexicon
    (``data/README.md`` says where they are and what their columns are called).

    Parameters
    ----------
    path : str or Path
        Comma- or tab-separated, with a header line.
    word, valence, arousal : str
        Names of the columns.

    Returns
    -------
    DataFrame ``[n <= 171, 2]``
        With columns valence and arousal on the file's own scale, indexed by emotion in the paper's
        order; only words that match letter for letter (case aside).

    Raises
    ------
    BadInput
        The file or a column is missing, a rating is no number, a word stands twice, or none of
        the 171 is in it.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "norms.csv")
    >>> _ = path.write_text("Word,V,A\\nHappy,8.5,6.1\\ntable,5.2,3.0\\n")
    >>> load_norms(path, word="Word", valence="V", arousal="A").to_dict("index")
    {'happy': {'valence': 8.5, 'arousal': 6.1}}
    """
    text = _read_text(Path(path))
    separator = "\t" if "\t" in text.partition("\n")[0] else ","
    # a lexicon's lone quotation mark is a mark, not the start of a quoted field
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    table = pd.read_csv(StringIO(text), sep=separator, quoting=quoting, dtype=str)
    wanted = {word: "emotion", valence: "valence", arousal: "arousal"}
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise BadInput(f"{path} has no column {missing[0]!r}; it has {', '.join(table.columns)}")
    table = table[list(wanted)].rename(columns=wanted)
    table["emotion"] = table.emotion.str.strip().str.lower()
    table = table[table.emotion.isin(EMOTIONS)]
    _check_norms(table, path)
    table = table.set_index("emotion").astype(float)
    return table.loc[[emotion for emotion in EMOTIONS if emotion in table.index]]


def _check_norms(table: pd.DataFrame, path: str | Path) -> None:
    if table.empty:
        raise BadInput(f"{path} rates none of the 171 emotions; is the word column the right one?")
    twice = table.emotion[table.emotion.duplicated()]
    if len(twice):
        raise BadInput(f"{path} rates {twice.iloc[0]!r} more than once; keep one line a word")
    for column in ("valence", "arousal"):
        bad = pd.to_numeric(table[column], errors="coerce").isna()
        if bad.any():
            first = table[bad].iloc[0]
            raise BadInput(f"{path}: the {column} of {first.emotion!r} is no number")


# --- stories and neutral texts -----------------------------------------------------------------


def load_stories(
    register: str | Path = "literary",
    *,
    topics: int | Sequence[str] | None = None,
    emotions: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return stories whose character feels an emotion that is never named.

    Parameters
    ----------
    register : {"literary", "plain"} or path
        A packaged corpus (171 emotions x 12 or 8 topics, one story a cell), or a .jsonl of your
        own: one object a line with emotion, topic, text and, optionally, register and batch.
    topics : int or list of str, optional
        The first so many topics in alphabetical order, or these.
    emotions : list of str, optional
        Only these.

    Returns
    -------
    DataFrame with columns emotion, topic, register, batch, text
        In the file's order (packaged: by topic, then in the paper's order of emotions). batch is
        the writing batch of the literary stories, NaN elsewhere.

    Raises
    ------
    BadInput, UnknownEmotion
        Names the valid topics or emotions, or the file and line that cannot be used.

    Examples
    --------
    >>> load_stories("plain", topics=2, emotions=["calm"]).topic.tolist()
    ['plain_body', 'plain_friend']
    """
    frame = pd.DataFrame(_read_stories(_stories_file(register))).reindex(columns=STORY_COLUMNS)
    if topics is not None:
        frame = frame[frame.topic.isin(_pick_topics(topics, sorted(set(frame.topic))))]
    if emotions is not None:
        frame = frame[frame.emotion.isin(check_emotions(emotions))]
    return frame.reset_index(drop=True)


def _stories_file(register: str | Path) -> Path | Traversable:
    if register in REGISTERS:
        return DATA / f"stories_{register}.jsonl"
    if str(register).endswith(".jsonl"):
        return Path(register)
    raise BadInput(
        f"no packaged stories {str(register)!r}: {nearest(str(register), REGISTERS)} "
        "(or give the path of a .jsonl)"
    )


def _pick_topics(topics: int | Sequence[str], valid: list[str]) -> list[str]:
    if isinstance(topics, int):
        if not 1 <= topics <= len(valid):
            raise BadInput(f"topics={topics}, but there are {len(valid)}: {', '.join(valid)}")
        return valid[:topics]
    chosen = _names(topics, "topics")
    unknown = [topic for topic in chosen if topic not in valid]
    if unknown:
        raise BadInput(f"unknown topic {unknown[0]!r}; the topics are {', '.join(valid)}")
    return list(chosen)


def _read_stories(file: Path | Traversable) -> list[dict]:
    """Return the rows of a story file, each checked."""
    rows = []
    for where, row in read_jsonl(file):
        missing = [name for name in ("emotion", "topic", "text") if name not in row]
        if missing:
            raise BadInput(f"{where}: no {missing[0]!r}; it has {', '.join(row) or 'nothing'}")
        if row["emotion"] not in EMOTIONS:
            raise UnknownEmotion(
                f"{where}: {row['emotion']!r} is not one of the 171 emotions; "
                f"{_near(row['emotion'])}"
            )
        for name in ("topic", "text"):
            if not isinstance(row[name], str) or not row[name].strip():
                raise BadInput(f"{where}: {name} is empty or no text")
        rows.append(row)
    if not rows:
        raise BadInput(f"{file} holds no stories")
    return rows


def read_jsonl(file: Path | Traversable) -> Iterator[tuple[str, dict]]:
    """Yield (where it stands, object) for each line that is not blank.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "own.jsonl")
    ...     _ = path.write_text('{"emotion": "calm"}\\n\\n{"emotion": "sad"}\\n')
    ...     [(where.rpartition(", ")[2], row) for where, row in read_jsonl(path)]
    [('line 1', {'emotion': 'calm'}), ('line 3', {'emotion': 'sad'})]
    """
    # only "\n" ends a line here: a story may hold other characters that `splitlines` cuts at
    for number, line in enumerate(_read_text(file).split("\n"), start=1):
        where = f"{file}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{where}: not JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise BadInput(f"{where}: expected a JSON object")
        yield where, row


def _read_text(file: Path | Traversable) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not UTF-8; save it as UTF-8") from error


def load_neutral(*, limit: int | None = None) -> pd.DataFrame:
    """Return texts without any feeling, for the neutral components and for scaling.

    Dialogues come as plain transcripts under the tags that the paper renames its speakers to,
    ``Human:`` and ``Assistant:``; passages come as they are.

    Parameters
    ----------
    limit : int, optional
        Take only so many, always the same ones: spread evenly over topics, then over kinds.

    Returns
    -------
    DataFrame ``[<= 260, 3]``
        With columns topic, kind ("dialogue" or "passage"), text.

    Examples
    --------
    >>> load_neutral(limit=20).topic.nunique()
    20
    """
    rows = [
        {"topic": row["topic"], "kind": row["kind"], "text": row.get("text") or _transcript(row)}
        for _, row in read_jsonl(DATA / "neutral.jsonl")
    ]
    frame = pd.DataFrame(rows)
    if limit is None:
        return frame
    if not 1 <= limit <= len(frame):
        raise BadInput(f"limit={limit}, but there are {len(frame)} neutral texts")
    return frame.loc[sorted(_spread(frame)[:limit])].reset_index(drop=True)


def _transcript(row: dict) -> str:
    tags = {"user": "Human", "assistant": "Assistant"}
    return "\n\n".join(f"{tags[turn['role']]}: {turn['content']}" for turn in row["turns"])


def _spread(frame: pd.DataFrame) -> pd.Index:
    """Return row numbers in an order whose every head is balanced over topics and kinds."""
    cell = frame.groupby(["topic", "kind"])
    share = (cell.cumcount() + 0.5) / cell.text.transform("size")
    turn = share.groupby(frame.topic).rank(method="first")
    return pd.DataFrame({"turn": turn, "topic": frame.topic}).sort_values(["turn", "topic"]).index


def corpus_hash(texts: Iterable[str]) -> str:
    """Return 16 hex digits of a SHA-256 over the texts in their order.

    >>> corpus_hash(["a", "b"]) == corpus_hash(["ab"])
    False
    """
    return digest(*texts)


# --- the leak filter ---------------------------------------------------------------------------


def word_family(emotion: str) -> frozenset[str]:
    """Return an emotion word with the words and phrases of its root that carry the feeling.

    Families are listed in ``data/word_families.json``, not derived by a stemmer, which would
    take *angrily* and *fury* for strangers of *angry* and *furious*, and *grated* for a relative
    of *grateful*. Synonyms of another root are not in a family.

    >>> sorted(word_family("smug"))
    ['smug', 'smugger', 'smuggest', 'smugly', 'smugness']
    """
    check_emotions([emotion])
    return _families()[emotion] | {emotion}


@cache
def _families() -> dict[str, frozenset[str]]:
    listed = json.loads((DATA / "word_families.json").read_text(encoding="utf-8"))
    return {emotion: frozenset(words) for emotion, words in listed.items()}


def leaks(text: str, emotion: str) -> list[str]:
    """Return the words of `text` that name `emotion`, lower-cased, in order of appearance.

    The filter reads letters, not senses. It flags a *kind* of tea, a hospital *patient*, a fire
    *alarm* and "I *hope* it rains"; it misses synonyms, misspellings and a phrase that is broken
    up ("wore her out"). Forms whose common meaning is another one are not listed and pass:
    *contents*, *kinds*, *patients*, *tires*, *please*, *lovely*, *rattle*, *sleep*, *play*.

    >>> leaks("She slammed the door furiously; what a fury!", "furious")
    ['furiously', 'fury']
    >>> leaks("The sadist read the table of contents.", "sad")
    []
    """
    check_emotions([emotion])
    return [match.group().lower() for match in _family_pattern(emotion).finditer(text)]


@cache
def _family_pattern(emotion: str) -> re.Pattern:
    # longest first, so that "worn out" is found before a shorter word that it begins with
    listed = sorted(word_family(emotion), key=lambda word: (-len(word), word))
    words = (r"[\s‐‑-]+".join(map(re.escape, re.split("[ -]", word))) for word in listed)
    either = "|".join(words).replace("'", "['’]")
    # "_" is no letter: Markdown writes _sad_
    return re.compile(rf"(?<![^\W_])(?:{either})(?![^\W_])", re.IGNORECASE)


# --- a model writes the corpus -----------------------------------------------------------------


def story_prompt(emotion: str, topic: str, n: int) -> str:
    """Return the request for `n` stories about `topic` whose character feels `emotion`.

    The design is the paper's (section "Emotional stories"), the wording our own.

    >>> print(story_prompt("calm", "a missed bus", 1).splitlines()[0])
    Write one short story about this situation: a missed bus
    """
    check_emotions([emotion])
    several = n > 1
    rules = [
        f'Neither "{emotion}" nor any word built on it or close to it in meaning may appear.',
        "What the character does and says, how the voice sounds, what the body feels, how it is "
        "held, what goes through the mind and what happens around must show the feeling.",
        "Write one paragraph of 80 to 150 words for each story, without a title and without "
        "any remark of yours before or after."
        if several
        else "Write one paragraph of 80 to 150 words, without a title or any remark of yours.",
    ]
    if several:
        rules += [
            "No story goes on from another: new people, another place, another course of events.",
            "No two stories open or are built alike.",
            'Tell some of them as "I" and others as "he", "she" or "they".',
        ]
    stories = f"{n} different short stories" if several else "one short story"
    return "\n".join(
        [
            f"Write {stories} about this situation: {topic}",
            f"The main character{' of each' if several else ''} feels {emotion}.",
            *(f"- {rule}" for rule in rules),
            'Put a line "Story 1:" before the first story, "Story 2:" before the second and so on.'
            if several
            else 'Put the line "Story 1:" before it.',
        ]
    )


# At the start of a line: "Story 1:", "**Story 2**"; failing that "### 3. ", "[4]", not "10:45"
_AFTER = r"[\].):*_–—\- \t]*"
_STORY_N = re.compile(rf"^[ \t>#*_\[(]*story[ \t]*#?\d{{1,3}}\b{_AFTER}", re.I | re.M)
_NUMBER = re.compile(rf"^[ \t>#*_\[(]*\d{{1,3}}[\].):*](?!\d){_AFTER}", re.I | re.M)
_SENTENCE_END = re.compile(r"[.!?…][\"'”’»)*_]*(?=\s|$)")
_TITLE_WORDS = 12


def parse_stories(text: str) -> list[str]:
    """Return the stories of a model's answer, each as one paragraph.

    Numbered blocks ("Story 1:", "2.", "**Story 3**") are told apart and what stands before the
    first is dropped; without numbers, the whole answer is one story. A title line is dropped.
    The last story, which the token limit may have cut off, ends with its last whole sentence.

    >>> parse_stories("Sure!\\nStory 1: It rained.\\nStory 2:\\nHe sat down. Then he")
    ['It rained.', 'He sat down.']
    """
    headers = list(_STORY_N.finditer(text)) or list(_NUMBER.finditer(text))
    starts = [header.end() for header in headers] or [0]
    ends = [header.start() for header in headers[1:]] + [len(text)]
    blocks = [_without_title(text[a:b]) for a, b in zip(starts, ends, strict=True)]
    blocks[-1] = _whole_sentences(blocks[-1])
    return [" ".join(block.split()) for block in blocks if block.strip()]


def _without_title(block: str) -> str:
    block = re.sub(r"\n[ \t]*[-*_=]{3,}[ \t]*(?=\n|$)", "\n", block).strip()  # rules between blocks
    first, _, rest = block.partition("\n")
    rest = rest.lstrip()
    is_title = (
        len(first.split()) <= _TITLE_WORDS
        and not _SENTENCE_END.search(first.strip())
        and not rest[:1].islower()  # else the line was only wrapped
    )
    return rest if rest and is_title else block


def _whole_sentences(text: str) -> str:
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else ""


def story_faults(
    text: str, emotion: str, *, min_words: int = 40, max_words: int = 400
) -> list[str]:
    """Return why a written story may not enter the corpus; an empty list lets it in.

    >>> story_faults("How sad.", "sad", min_words=3)
    ['names the emotion: sad', '2 words, not 3 to 400']
    """
    faults = []
    named = leaks(text, emotion)
    if named:
        faults.append(f"names the emotion: {', '.join(named)}")
    words = len(text.split())
    if not min_words <= words <= max_words:
        faults.append(f"{words} words, not {min_words} to {max_words}")
    return faults


def write_stories(
    model: TracedModel,
    emotions: Sequence[str],
    topics: Sequence[str],
    *,
    stories_per_cell: int = 1,
    out: str | Path,
    seed: int = 0,
    min_words: int = 40,
    max_words: int = 400,
    attempts: int = 3,
    max_new_tokens: int = 400,
    temperature: float = 1.0,
    progress: bool = True,
) -> pd.DataFrame:
    """Let a model write a corpus, as the paper did: every emotion in every topic.

    A story enters if it does not name its emotion (see `leaks`), has the right length and is not
    there yet. A cell that is still short is asked again with another seed. Each accepted story is
    on disk before the next is looked at: call again with the same `out` to go on after a kill or
    to add cells; complete cells are not asked again.

    Parameters
    ----------
    model : TracedModel
        An instruction-tuned model; base models seldom keep to the rules.
    emotions : list of str
        Out of the 171.
    topics : list of str
        One-line situations that name no feeling.
    stories_per_cell : int
        Asked for together in one prompt (the paper: 12).
    out : path
        A .jsonl to append to; `load_stories` reads it.
    seed : int
        With the attempt and the cells, sets the sampling. Cells that were in flight when a run
        was killed get other stories than they would have got.
    min_words, max_words : int
        Shorter and longer stories are left out.
    attempts : int
        How often a cell is asked before it is given up.
    max_new_tokens : int
        For each story that is asked for.
    temperature : float
        At 0 every attempt gives the same answer.
    progress : bool
        Show a progress bar.

    Returns
    -------
    DataFrame with columns emotion, topic, register, batch, text
        The stories of these cells, in the order of `out`; register says which model wrote them.
        ``.attrs["unfilled"]`` lists (emotion, topic, number missing) of the cells that stayed
        short; one warning counts them.

    Raises
    ------
    BadInput, UnknownEmotion
        Before the model is asked anything.

    Examples
    --------
    >>> write_stories(None, ["calm"], ["a missed bus"], out="stories.txt")
    Traceback (most recent call last):
    ...
    emotion_concepts.errors.BadInput: out must end in .jsonl, not stories.txt
    """
    topics = _names(topics, "topics")
    cells = [(emotion, topic) for topic in topics for emotion in check_emotions(emotions)]
    _check_request(Path(out), cells, stories_per_cell, attempts, min_words, max_words)
    file = _StoryFile(Path(out), f"written by {model.identity.name}", stories_per_cell)
    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    todo = sum(map(file.missing, cells))
    with tqdm(total=todo, desc="stories", disable=not progress) as bar:
        for start in range(0, len(cells), CELLS_A_CALL):
            group = cells[start : start + CELLS_A_CALL]
            for attempt in range(attempts):
                wanted = {cell: file.missing(cell) for cell in group if file.missing(cell)}
                for cell, text in _ask(model, wanted, seed=(seed, attempt), **sampling):
                    faults = story_faults(text, cell[0], min_words=min_words, max_words=max_words)
                    if not faults and file.add(cell, text):
                        bar.update()
    return _report(file, cells, attempts)


def _check_request(
    out: Path,
    cells: list[tuple[str, str]],
    stories_per_cell: int,
    attempts: int,
    min_words: int,
    max_words: int,
) -> None:
    if out.suffix != ".jsonl":
        raise BadInput(f"out must end in .jsonl, not {out}")
    if not cells:
        raise BadInput("no cells to write: give at least one emotion and one topic")
    if any(not isinstance(topic, str) or not topic.strip() for _, topic in cells):
        raise BadInput("every topic must be a line of text")
    if len(set(cells)) < len(cells):
        raise BadInput("an emotion or a topic is given twice")
    if stories_per_cell < 1 or attempts < 1:
        raise BadInput("stories_per_cell and attempts must be at least 1")
    if not 1 <= min_words <= max_words:
        raise BadInput(f"min_words={min_words} and max_words={max_words} leave no story")


def _ask(
    model: TracedModel,
    wanted: dict[tuple[str, str], int],
    *,
    seed: tuple[int, int],
    max_new_tokens: int,
    temperature: float,
) -> list[tuple[tuple[str, str], str]]:
    """Return (cell, story) for every story in the model's answers to all cells at once."""
    if not wanted:
        return []
    # imported here, so that reading the corpora does not load torch
    from emotion_concepts import tracing

    requests = [story_prompt(*cell, n) for cell, n in wanted.items()]
    answers = tracing.generate(
        model,
        [model.chat_prompt([{"role": "user", "content": request}]) for request in requests],
        max_new_tokens=max_new_tokens * max(wanted.values()),
        temperature=temperature,
        seeds=[int(digest(*seed, request, length=8), 16) for request in requests],
    )
    return [
        (cell, story)
        for cell, answer in zip(wanted, answers, strict=True)
        for story in parse_stories(answer)
    ]


class _StoryFile:
    """The accepted stories of one .jsonl: synced to disk line by line, counted in memory."""

    def __init__(self, path: Path, register: str, stories_per_cell: int):
        self.path, self.register, self.stories_per_cell = path, register, stories_per_cell
        path.parent.mkdir(parents=True, exist_ok=True)
        _mend_last_line(path)
        self.rows = _read_stories(path) if path.exists() and path.stat().st_size else []
        self._count = Counter((row["emotion"], row["topic"]) for row in self.rows)
        self._seen = {_normal(row["text"]) for row in self.rows}

    def missing(self, cell: tuple[str, str]) -> int:
        return max(0, self.stories_per_cell - self._count[cell])

    def add(self, cell: tuple[str, str], text: str) -> bool:
        """Append a story; False if its cell is full or the story is there already."""
        if not self.missing(cell) or _normal(text) in self._seen:
            return False
        row = dict(zip(STORY_COLUMNS, (*cell, self.register, None, text), strict=True))
        with open(self.path, "ab") as file:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)
        self._count[cell] += 1
        self._seen.add(_normal(text))
        return True


def _mend_last_line(path: Path) -> None:
    """Cut off a last line that a kill left half-written; end one that lacks only its newline."""
    data = path.read_bytes() if path.exists() else b""
    end = data.rfind(b"\n") + 1
    if end == len(data):
        return
    try:
        json.loads(data[end:])
    except ValueError:
        os.truncate(path, end)
    else:
        with open(path, "ab") as file:
            file.write(b"\n")


def _normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _report(file: _StoryFile, cells: list[tuple[str, str]], attempts: int) -> pd.DataFrame:
    wanted = set(cells)
    rows = [row for row in file.rows if (row["emotion"], row["topic"]) in wanted]
    frame = pd.DataFrame(rows, columns=STORY_COLUMNS)
    frame.attrs["unfilled"] = [(*cell, file.missing(cell)) for cell in cells if file.missing(cell)]
    if frame.attrs["unfilled"]:
        emotion, topic, short = frame.attrs["unfilled"][0]
        warnings.warn(
            f"{len(frame.attrs['unfilled'])} of {len(cells)} cells are short after {attempts} "
            f'attempts (first: {emotion} in {topic!r} lacks {short}); see .attrs["unfilled"]. '
            "Call again with another seed, a larger model or more attempts.",
            stacklevel=3,
        )
    return frame
