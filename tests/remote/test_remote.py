"""The packaged model on a real NDIF server: what it computes, and what is said when it fails.

In float32 on the same machine, a server and this process differ by rounding alone.
"""

import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from emotion_concepts import corpus, models, tracing
from emotion_concepts.errors import BadInput, ServerError, UnknownModel
from emotion_concepts.monitor import EmotionMonitor, calibrate
from emotion_concepts.steering import Steering, steer
from emotion_concepts.tracing import MeanFrom, TokenAt
from emotion_concepts.vectors import EmotionVectors, Provenance
from run import Problem
from tools import ndif

pytestmark = [pytest.mark.remote, pytest.mark.model]

PROMPTS = ["The weather today is", "She opened the letter and", "My favourite food is"]
SPAN = [[(0, 7)], [(4, 10)], [(3, 12)]]
EMOTIONS = ("calm", "desperate", "joyful")
CLOSE = {"rtol": 1e-4, "atol": 5e-3}  # at activations of several hundred


@pytest.fixture
def jobs(monkeypatch):
    """The shapes of every array that jobs bring back, one list a job."""
    brought = []
    real = tracing._Server.finalize

    def finalize(self, content):
        result = real(self, content)
        flat = [v for value in result.values() for v in (value if type(value) is list else [value])]
        brought.append([tuple(value.shape) for value in flat if isinstance(value, torch.Tensor)])
        return result

    monkeypatch.setattr(tracing._Server, "finalize", finalize)
    return brought


@pytest.fixture
def steering(planted):
    """A direction of its own, and a strength, for each of three rows."""
    directions, scale = planted
    a, b = directions.values()
    return steer(np.stack([a, b, a]), [0.3, 0.3, -0.2], scale.residual_norm, [12, 15])


# --- the same numbers --------------------------------------------------------------------------


def test_no_weights_are_here(far, smollm):
    assert far.device.type == "meta" and far.identity.weights == smollm.identity.weights
    assert far.identity.tokenizer == smollm.identity.tokenizer
    assert "on NDIF at http://127.0.0.1" in far.report()


def test_the_lens_and_static_embeddings_are_reckoned_where_the_weights_are(far, smollm, jobs):
    directions = np.random.default_rng(0).normal(size=(3, smollm.d_model))
    there, here = (tracing.lens_logits(model, directions) for model in (far, smollm))
    np.testing.assert_allclose(there, here, atol=1e-5)
    there, here = (tracing.mean_embedding(model, PROMPTS) for model in (far, smollm))
    np.testing.assert_allclose(there, here, atol=1e-6)
    assert jobs == [[(3, smollm.vocab_size)], [(3, smollm.d_model)]]


def test_pooled_residuals_are_those_of_this_machine_and_nothing_larger_travels(
    far, smollm, stories, jobs, tmp_path, monkeypatch
):
    pools = [MeanFrom(10), TokenAt(1.0)]
    monkeypatch.setattr(tracing, "JOB_BATCHES", 3)
    options = {"batch_tokens": 256, "cache": tmp_path}
    there = tracing.pooled_residuals_many(far, stories, pools, **options)
    here = tracing.pooled_residuals_many(smollm, stories, pools, **options)
    for pool in pools:
        np.testing.assert_allclose(np.asarray(there[pool]), np.asarray(here[pool]), **CLOSE)
    assert {shape[1:] for job in jobs for shape in job} == {(2, 30, 576)}
    assert sum(shape[0] for job in jobs for shape in job) == len(stories)
    assert max(map(len, jobs)) == 3 and len(jobs) >= 2


def test_spans_and_tokens_are_those_of_this_machine(far, smollm, steering, tmp_path):
    there, here = (
        np.asarray(tracing.span_residuals(model, PROMPTS, SPAN, cache=tmp_path))
        for model in (far, smollm)
    )
    np.testing.assert_allclose(there, here, **CLOSE)
    for add in (None, steering):
        pairs = zip(
            tracing.token_residuals(far, PROMPTS, [0, 12, 29], steering=add),
            tracing.token_residuals(smollm, PROMPTS, [0, 12, 29], steering=add),
            strict=True,
        )
        for there, here in pairs:
            np.testing.assert_allclose(there, here, **CLOSE)


def test_logprobs_are_those_of_this_machine(far, smollm, steering, tmp_path):
    options = [[" fine.", " not so good."], [" smiled.", " wept."], [" bread.", " apple pie."]]
    spans = Steering(steering.layers, steering.add, SPAN)
    for add in (None, steering, spans):
        there = tracing.next_token_logprobs(far, PROMPTS, steering=add)
        here = tracing.next_token_logprobs(smollm, PROMPTS, steering=add)
        np.testing.assert_allclose(there, here, atol=2e-4)
        there = tracing.option_logprobs(far, PROMPTS, options, steering=add, cache=tmp_path)
        here = tracing.option_logprobs(smollm, PROMPTS, options, steering=add, cache=tmp_path)
        np.testing.assert_allclose(there.total, here.total, atol=5e-4)
    whole = [[(0, len(prompt))] for prompt in PROMPTS]
    both = {"marked": SPAN, "whole": whole}
    there, here = (
        tracing.options_and_residuals(model, PROMPTS, options, both, cache=tmp_path / "both")
        for model in (far, smollm)
    )
    np.testing.assert_allclose(there[0].total, here[0].total, atol=5e-4)
    for name in both:
        np.testing.assert_allclose(there[1][name], here[1][name], **CLOSE)


def test_generated_tokens_are_those_of_this_machine(far, smollm, steering, tmp_path):
    spans = Steering(steering.layers, steering.add, SPAN)
    options = {"max_new_tokens": 12, "cache": tmp_path}
    found = []
    for add in (None, steering, spans):
        there, here = (
            tracing.generate(model, PROMPTS, steering=add, **options) for model in (far, smollm)
        )
        assert there == here
        found.append(there)
    assert found[0] != found[1] and found[0] != found[2]


def test_samples_of_a_server_are_its_own(far, tmp_path):
    options = {"max_new_tokens": 8, "temperature": 1.0, "cache": tmp_path}
    first = tracing.generate(far, [PROMPTS[0]] * 2, **options)
    assert all(first) and tracing.generate(far, [PROMPTS[0]] * 2, **options) == first  # kept


def test_a_chat_is_monitored_by_its_transcript_with_vectors_made_here(far, smollm):
    stories = corpus.load_stories("plain", topics=2, emotions=EMOTIONS)
    quiet = corpus.load_neutral(limit=8).text.tolist()
    identity = smollm.identity
    vectors = EmotionVectors.fit(
        tracing.pooled_residuals(smollm, stories.text.tolist(), MeanFrom(10)),
        stories.emotion.tolist(),
        tracing.pooled_residuals(smollm, quiet, MeanFrom(20)),
        topics=stories.topic.tolist(),
        provenance=Provenance(identity.name, identity.weights, identity.tokenizer, *"cn", 10, 0.5),
    )
    baseline = calibrate(smollm, vectors, ["calm", "desperate"], texts=quiet)
    chat = [
        {"role": "user", "content": "The last test failed again."},
        {"role": "assistant", "content": "Then let us read the log from the start."},
    ]
    there, here = (
        EmotionMonitor(model, vectors, baseline).transcript(chat) for model in (far, smollm)
    )
    pd.testing.assert_frame_equal(there, here, rtol=1e-3, atol=1e-3)
    with pytest.raises(BadInput, match="cannot send tokens out one by one"):
        next(EmotionMonitor(far, vectors, baseline).stream(chat[:1], max_new_tokens=2))


def test_a_result_too_large_for_the_socket_arrives_by_the_object_store(
    far, smollm, stories, monkeypatch
):
    by = []
    real = tracing._Server.download_result

    def download(self, url):
        by.append(type(url))
        return real(self, url)

    monkeypatch.setattr(tracing._Server, "download_result", download)
    layers = range(30)
    there = tracing.token_residuals(far, stories[:4], layers)
    size = sum(one.nbytes for one in there)
    assert size > 16 * 2**20 and by == [str]  # an address; what is small comes as bytes
    for mine, theirs in zip(
        there, tracing.token_residuals(smollm, stories[:4], layers), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, **CLOSE)


CLIENT = """
import sys
from pathlib import Path
import numpy as np
from emotion_concepts import corpus, models, tracing
url, folder = sys.argv[1:]
stories = corpus.load_stories("plain", topics=1).text.tolist()[:12]
far = models.load_model(remote=url)
(Path(folder) / "ready").touch()
found = tracing.pooled_residuals(
    far, stories, tracing.MeanFrom(10), batch_tokens=128, cache=Path(folder)
)
np.save(Path(folder) / "found.npy", np.asarray(found))
"""


def test_two_clients_at_once_each_get_their_own(
    far, smollm, stories, server, tmp_path, monkeypatch
):
    monkeypatch.setattr(tracing, "JOB_BATCHES", 1)
    folder = tmp_path / "other"
    folder.mkdir()
    other = subprocess.Popen([sys.executable, "-c", CLIENT, server.url, str(folder)])
    while not (folder / "ready").exists() and other.poll() is None:
        time.sleep(0.1)
    options = {"batch_tokens": 128, "cache": tmp_path}
    texts = stories[::-1]
    mine = np.asarray(tracing.pooled_residuals(far, texts, TokenAt(1.0), **options))
    assert other.wait(timeout=300) == 0
    here = tracing.pooled_residuals_many(smollm, stories, [MeanFrom(10), TokenAt(1.0)], **options)
    np.testing.assert_allclose(mine[::-1], np.asarray(here[TokenAt(1.0)]), **CLOSE)
    theirs = np.load(folder / "found.npy")
    np.testing.assert_allclose(theirs, np.asarray(here[MeanFrom(10)]), **CLOSE)


# --- what is said when it fails ----------------------------------------------------------------


def told(caught) -> str:
    """Return an error's sentence, which has to be one line."""
    text = str(caught.value)
    assert "\n" not in text and len(text) < 500
    return text


def test_the_public_server_wants_a_key_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("NDIF_API_KEY", raising=False)
    monkeypatch.setattr(tracing.CONFIG.API, "APIKEY", None)
    with pytest.raises(ServerError, match="api.ndif.us needs an API key.*set NDIF_API_KEY") as e:
        models.load_model(remote=True)
    told(e)


def test_an_address_that_is_none_is_refused():
    with pytest.raises(BadInput, match="remote='ndif' is no server"):
        models.load_model(remote="ndif")


def test_a_server_that_is_not_there_is_named():
    [port] = ndif.free_ports(1)
    model = models.load_model(remote=f"http://127.0.0.1:{port}")
    with pytest.raises(ServerError, match=f"no NDIF server at http://127.0.0.1:{port} ") as e:
        tracing.next_token_logprobs(model, PROMPTS)
    assert "run.py ndif start" in told(e)


def test_a_model_that_the_server_cannot_load_is_refused_with_those_it_has(far, server, tmp_path):
    tracing.next_token_logprobs(far, PROMPTS[:1])  # so that there is one
    packaged = models.packaged_weights(models.cards()[models.DEFAULT_MODEL])
    folder = tmp_path / "gone"
    shutil.copytree(packaged, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").symlink_to(packaged / "model.safetensors")
    model = models.load_model(str(folder), remote=server.url)
    shutil.rmtree(folder)
    with pytest.raises(UnknownModel, match=f"does not run '{folder}'.*it runs .*smollm2") as e:
        tracing.next_token_logprobs(model, PROMPTS[:1])
    told(e)


def test_a_job_that_fails_ends_with_the_servers_last_line(far):
    narrow = Steering([3], np.ones((3, 1, 7), dtype=np.float32))
    with pytest.raises(ServerError, match="a job failed on http.*RuntimeError: The size of") as e:
        tracing.next_token_logprobs(far, PROMPTS, steering=narrow)
    told(e)
    assert tracing.next_token_logprobs(far, PROMPTS).shape == (3, far.vocab_size)  # and goes on


# --- killed in the middle ----------------------------------------------------------------------


def kill_during(monkeypatch, number: int, processes) -> tuple[list, list]:
    """Kill processes while a pooled extraction runs; return its jobs as they go, and the killed."""
    jobs, killed, real = [], [], tracing._pooled_session

    def kill():
        for one in processes():
            one.kill()
            killed.append(one)

    def session(model, parts):
        jobs.append(len(parts))
        if len(jobs) == number and not killed:
            threading.Timer(0.2, kill).start()
        return real(model, parts)

    monkeypatch.setattr(tracing, "_pooled_session", session)
    return jobs, killed


def extract(model, stories, folder):
    options = {"batch_tokens": 256, "cache": folder}
    return np.asarray(tracing.pooled_residuals(model, stories, MeanFrom(12), **options))


def rows_kept(folder) -> int:
    return sum(len(path.read_text().split()) for path in folder.rglob("index.txt"))


def test_a_killed_model_actor_costs_no_row(far, smollm, stories, server, tmp_path, monkeypatch):
    def actor():
        return [p for p in server.processes() if "CPUModelActor" in " ".join(p.cmdline())]

    monkeypatch.setattr(tracing, "JOB_BATCHES", 1)
    jobs, killed = kill_during(monkeypatch, 2, actor)
    try:
        found = extract(far, stories, tmp_path)  # the server may run the job again by itself
    except ServerError as error:
        assert "\n" not in str(error) and rows_kept(tmp_path) > 0
        found = extract(far, stories, tmp_path)
    assert killed and len(jobs) > 2
    np.testing.assert_allclose(found, extract(smollm, stories, tmp_path / "here"), **CLOSE)


def test_a_killed_server_is_resumed_after_its_restart_and_loses_nothing(
    far, smollm, stories, server, tmp_path, monkeypatch
):
    def api() -> list[psutil.Process]:
        process = server.process("api")
        return [process, *process.children(recursive=True)]

    monkeypatch.setattr(tracing, "JOB_BATCHES", 1)
    jobs, killed = kill_during(monkeypatch, 3, api)
    with pytest.raises(ServerError, match="the connection to .* broke before its job was") as e:
        extract(far, stories, tmp_path)
    told(e)
    kept = rows_kept(tmp_path)
    assert killed and len(jobs) == 3 and 0 < kept < len(stories)
    with pytest.raises(ServerError, match="there is no NDIF server at"):
        extract(far, stories, tmp_path)
    again = ndif.start(port=int(server.url.rsplit(":", 1)[1]))
    assert again.url == server.url and again.pids != server.pids
    jobs.clear()
    found = extract(far, stories, tmp_path)
    rest, _ = len(jobs), jobs.clear()
    assert rows_kept(tmp_path) == len(stories)
    extract(far, stories, tmp_path / "anew")
    assert len(jobs) == rest + 2  # the two jobs that were done before were not done again
    np.testing.assert_allclose(found, extract(smollm, stories, tmp_path / "here"), **CLOSE)


def test_a_start_that_is_not_ready_in_time_leaves_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setattr(ndif, "STATE", tmp_path / "state.json")
    monkeypatch.setattr(ndif, "LOGS", tmp_path / "log")
    launched, real = [], ndif.launch

    def launch(*arguments):
        launched.append(real(*arguments))
        return launched[-1]

    monkeypatch.setattr(ndif, "launch", launch)
    with pytest.raises(Problem, match=r"NDIF's \w+ was not ready in time: .*; see .*\.log"):
        ndif.start(seconds=2)
    assert launched and not any(psutil.pid_exists(one.pid) for one in launched)
    assert not ndif.STATE.exists()
