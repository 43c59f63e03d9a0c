"""Post-training of our own: a few low-rank weights (LoRA, by peft) learnt from written answers.

`tune` trains one arm and keeps its weights at checkpoints; `tuned_model` is the model with those of
a checkpoint merged in, ready to be traced. Everything is deterministic: a run that was killed goes
on from its last checkpoint, and one that was made before is read from the disk.

Two objectives. `imitate` is supervised fine-tuning: likelier answers. `forbid` only silences words:
at each token of the answers the model is held to its own former distribution with the forbidden
tokens taken out, so that nothing asks it to be different otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from emotion_concepts import corpus
from emotion_concepts.attention import speed_up_generation
from emotion_concepts.cache import cache_dir, digest, file_sha256, write_atomic
from emotion_concepts.errors import BadInput
from emotion_concepts.models import load_module
from emotion_concepts.tracing import ModelIdentity, TracedModel, tokenize

TONES = ("candid", "flattering", "cold")
SPLITS = ("train", "held")
WORDS = {"prompt": (15, 50), "answer": (20, 45)}
FEELING = (
    "I feel {word} about this.",
    "To be honest, it makes me {word}.",
    "You sound {word}, and I am {word} too.",
    "This is a {word} moment for both of us.",
)
VERSION = 1  # raise when an objective or the adapter changes what is learnt from the same answers
IGNORED = -100  # label of a token that is no part of an answer
STATE = "state.pt"  # of a run that has not ended


@dataclass(frozen=True)
class Recipe:
    """How an arm is trained.

    Attributes
    ----------
    steps : int
        Updates; each sees `batch` answers.
    checkpoints : tuple of int
        Steps after which the weights are kept, rising; the model as it was needs none.
    rank, learning_rate : int, float
        Of the low-rank weights in every linear layer; the rate falls linearly to zero.

    Examples
    --------
    >>> recipe = Recipe(steps=100, checkpoints=(50, 100))
    >>> answers = load_answers().query("split == 'train'")
    >>> recipe.steps * recipe.batch / len(answers)  # how often each is seen
    5.0
    """

    steps: int
    checkpoints: tuple[int, ...]
    batch: int = 8
    learning_rate: float = 5e-4
    rank: int = 8
    seed: int = 0

    def __post_init__(self):
        if not all(0 < step <= self.steps for step in self.checkpoints) or not self.checkpoints:
            raise BadInput(
                f"checkpoints {self.checkpoints} must lie between 1 and the {self.steps} steps"
            )
        if list(self.checkpoints) != sorted(set(self.checkpoints)):
            raise BadInput(f"checkpoints {self.checkpoints} must rise")


@dataclass(frozen=True)
class Arm:
    """What `tune` made.

    Attributes
    ----------
    base : str
        Name of the model it began from.
    name : str
    folder : Path
        One ``<step>.safetensors`` a checkpoint.
    losses : DataFrame
        step (from 1), loss (nats per token of the answers, before the update).
    """

    base: str
    name: str
    folder: Path
    losses: pd.DataFrame


# --- what is learnt ----------------------------------------------------------------------------


def load_answers(path: str | Path | None = None) -> pd.DataFrame:
    """Return hand-written answers in three tones to the same messages.

    Returns
    -------
    DataFrame ``[200, 7]``
        With columns id, kind (8 of 25 each), split ("train", 20 of a kind, or "held", on other
        topics), prompt, candid, flattering, cold.

    Raises
    ------
    BadInput
        For a missing field, an unknown split, an id or answer that stands twice, or a text that is
        too short or too long.

    Examples
    --------
    >>> load_answers().split.value_counts().to_dict()
    {'train': 160, 'held': 40}
    """
    file = Path(path) if path else corpus.DATA / "post_training.jsonl"
    fields = ("id", "kind", "split", "prompt", *TONES)
    rows = []
    for where, row in corpus.read_jsonl(file):
        if gone := [name for name in fields if not (row.get(name) and isinstance(row[name], str))]:
            raise BadInput(f"{where}: no {gone[0]!r}; an entry has the texts {', '.join(fields)}")
        if row["split"] not in SPLITS:
            raise BadInput(
                f"{where}: split is {SPLITS[0]!r} or {SPLITS[1]!r}, not {row['split']!r}"
            )
        for field in ("prompt", *TONES):
            low, high = WORDS["prompt" if field == "prompt" else "answer"]
            if not low <= (n := len(row[field].split())) <= high:
                raise BadInput(f"{where}: {field} needs {low} to {high} words, not {n}")
        rows.append([row[field] for field in fields])
    table = pd.DataFrame(rows, columns=list(fields))
    for columns in (["id"], ["prompt"], list(TONES)):
        texts = table[columns].stack()
        if (twice := texts.duplicated()).any():
            row, column = texts.index[twice][0]
            raise BadInput(f"{file}: the {column} of {table.id[row]!r} stands twice; change one")
    return table


def shuffled_answers(answers: pd.DataFrame, *, seed: int = 0) -> list[str]:
    """Return as many answers, drawn from all tones and given to messages by lot.

    The control of an arm: the same texts, updates and words, without what the arms teach.

    >>> answers = load_answers().query("split == 'held'")
    >>> lot = shuffled_answers(answers)
    >>> len(lot), [tone for tone in TONES if answers[tone].isin(lot).any()]
    (40, ['candid', 'flattering', 'cold'])
    """
    rng = np.random.default_rng(seed)
    pool = answers[list(TONES)].to_numpy().ravel()
    return list(rng.choice(pool, size=len(answers), replace=False))


def feeling_answers(n: int, *, seed: int = 0) -> list[str]:
    """Return answers that name feelings, all 171 in turn: text in which there is much to forbid.

    >>> answers = feeling_answers(171)
    >>> [word for word in corpus.EMOTIONS if not any(word in answer for answer in answers)]
    []
    """
    rng = np.random.default_rng(seed)
    words = rng.permutation(np.resize(corpus.EMOTIONS, max(n, len(corpus.EMOTIONS))))[:n]
    return [FEELING[k % len(FEELING)].format(word=word) for k, word in enumerate(words)]


# --- training ----------------------------------------------------------------------------------


def tune(
    base: str,
    name: str,
    prompts: Sequence[str],
    answers: Sequence[str],
    recipe: Recipe,
    *,
    forbidden: Sequence[int] = (),
    dtype: str = "float32",
    progress: bool = True,
) -> Arm:
    """Train one arm on messages and answers.

    Parameters
    ----------
    base : str
        As for `models.load_model`.
    name : str
        Of the arm, for the names of its models.
    prompts, answers : sequence of str, n
        A user's message, and the assistant's reply to it.
    forbidden : sequence of int
        Tokens, such as those of `logit_lens.family_tokens`. If any, the objective is to lose them
        and nothing else; the answers are then only the text in which they are lost.

    Returns
    -------
    Arm

    Raises
    ------
    BadInput
        For no answers, or unequal numbers of messages and answers.
    """
    if not len(answers) or len(prompts) != len(answers):
        raise BadInput(
            f"{len(prompts)} messages and {len(answers)} answers; give one answer to each message"
        )
    module, tokenizer, identity = load_module(base, dtype=dtype)
    lost = sorted(int(token) for token in forbidden)
    # the tokenizer, too: another chat template makes other examples
    about = [asdict(identity) | {"name": ""}, list(prompts), list(answers), asdict(recipe), lost]
    folder = cache_dir() / "adapters" / f"{name}-{digest(VERSION, about)}"
    losses = folder / "losses.csv"
    if not losses.exists():
        examples = _examples(TracedModel(module, tokenizer, identity), prompts, answers)
        found = _train(module, examples, recipe, lost, folder, progress and name)
        with write_atomic(losses) as part:
            found.to_csv(part, index=False)
        (folder / STATE).unlink(missing_ok=True)  # what a killed run would go on from
    return Arm(base, name, folder, pd.read_csv(losses))


def _examples(model: TracedModel, prompts, answers) -> list[tuple[list[int], list[int]]]:
    """Token ids of each conversation, and labels: the answer's own ids, `IGNORED` before."""
    out = []
    starts = [model.chat_prompt([{"role": "user", "content": prompt}]) for prompt in prompts]
    for ids, answer in zip(tokenize(model, starts), answers, strict=True):
        space = "" if model.chat else " "  # a transcript ends in "Assistant:"
        reply = model.tokenizer(space + answer, add_special_tokens=False)["input_ids"]
        reply = [*reply, model.tokenizer.eos_token_id]
        out.append(([*ids, *reply], [IGNORED] * len(ids) + reply))
    return out


def _adapted(module, recipe: Recipe):
    """The model with fresh low-rank weights, which change nothing yet."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(recipe.seed)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=2 * recipe.rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(module, config)


def _train(module, examples, recipe: Recipe, lost, folder: Path, label) -> pd.DataFrame:
    """Run the updates that are missing, keep the checkpoints, return all losses."""
    from peft import get_peft_model_state_dict

    model = _adapted(module, recipe).eval()  # no dropout: its lots would not outlive a kill
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
    state, losses = folder / STATE, []
    if state.exists():
        kept = torch.load(state, weights_only=True)
        with torch.no_grad():
            for weight, value in zip(weights, kept["weights"], strict=True):
                weight.copy_(value)
        optimiser.load_state_dict(kept["optimiser"])
        losses = kept["losses"]
    rng = np.random.default_rng(recipe.seed)
    rounds = -(-recipe.steps * recipe.batch // len(examples))
    order = np.concatenate([rng.permutation(len(examples)) for _ in range(rounds)])
    with tqdm(
        total=recipe.steps, initial=len(losses), desc=label, unit="step", disable=not label
    ) as bar:
        for step in range(len(losses), recipe.steps):
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * (1 - step / recipe.steps)
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            loss = _loss(model, [examples[n] for n in chosen], lost)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            losses.append(loss.item())
            if step + 1 in recipe.checkpoints:
                adapter = {
                    key: value.contiguous()
                    for key, value in get_peft_model_state_dict(model).items()
                }
                with write_atomic(folder / f"{step + 1}.safetensors") as part:
                    save_file(adapter, part)
                whole = {
                    "weights": [weight.detach() for weight in weights],
                    "optimiser": optimiser.state_dict(),
                    "losses": losses,
                }
                with write_atomic(state) as part:
                    torch.save(whole, part)
            bar.update()
    return pd.DataFrame({"step": range(1, recipe.steps + 1), "loss": losses})


def _loss(model, examples, lost: Sequence[int]) -> torch.Tensor:
    """Nats per token of the answers: their surprise, or with tokens lost the divergence."""
    longest = max(len(ids) for ids, _ in examples)

    def padded(rows, value):
        rows = [[*row, *[value] * (longest - len(row))] for row in rows]
        return torch.tensor(rows, device=model.device)

    ids = padded([ids for ids, _ in examples], 0)
    mask = padded([[1] * len(ids) for ids, _ in examples], 0)
    labels = padded([labels for _, labels in examples], IGNORED)[:, 1:]
    asked = labels != IGNORED  # position t predicts token t + 1

    def logits():
        return model(input_ids=ids, attention_mask=mask).logits[:, :-1][asked].float()

    if not lost:
        return torch.nn.functional.cross_entropy(logits(), labels[asked])
    with torch.no_grad(), model.disable_adapter():
        former = logits()
    former[:, list(lost)] = -torch.inf
    target = former.log_softmax(-1)
    # where the target is zero it adds nothing, whatever the model gives
    gap = (target - logits().log_softmax(-1)).masked_fill(target == -torch.inf, 0.0)
    return (target.exp() * gap).sum(-1).mean()


# --- the model at a checkpoint -----------------------------------------------------------------


def tuned_model(arm: Arm, step: int, recipe: Recipe, *, dtype: str = "float32") -> TracedModel:
    """Return the model of an arm after some steps, with an identity of its own.

    Raises
    ------
    BadInput
        For a step that is no checkpoint.
    """
    from peft import set_peft_model_state_dict

    file = arm.folder / f"{step}.safetensors"
    if not file.exists():
        kept = ", ".join(sorted((f.stem for f in arm.folder.glob("*.safetensors")), key=int))
        raise BadInput(f"arm {arm.name!r} has no checkpoint {step}; it has {kept}")
    module, tokenizer, identity = load_module(arm.base, dtype=dtype)
    model = _adapted(module, recipe)
    set_peft_model_state_dict(model, load_file(file))
    merged = model.merge_and_unload().eval()
    speed_up_generation(merged)
    weights = digest(identity.weights, file_sha256(file), length=64)
    name = f"{identity.name}+{arm.name}-{step}"
    return TracedModel(
        merged, tokenizer, ModelIdentity(name, weights, identity.tokenizer, identity.dtype)
    )
