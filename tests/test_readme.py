import re

import pytest

from emotion_concepts.errors import RegisterError
from tools import readme


def test_the_readme_says_what_the_published_registers_say():
    text = (readme.ROOT / "README.md").read_text()
    wanted = readme.with_findings(text, readme.findings(readme.published()))
    assert text == wanted, "run `python -m tools.readme`"
    assert all((readme.ROOT / path).exists() for path in (readme.FIGURE, readme.SCORECARD))


def test_a_finding_without_a_number_in_the_register_fails():
    registers = readme.published()
    del registers[0].entries["top1_literary_probe"]
    with pytest.raises(RegisterError, match="top1_literary_probe"):
        readme.findings(registers)


def test_every_claim_of_every_chapter_stands_in_the_readme():
    text = (readme.ROOT / "README.md").read_text()
    chapters = [one for one in readme.published() if len(one.claims())]
    assert len(chapters) == 10  # the ledger and the explorer claim nothing of their own
    for register in chapters:
        assert len(register.claims()) >= 4
        for row in register.claims().itertuples():
            assert f"| {row.claim} | {row.criterion} | {row.verdict} |" in text


@pytest.mark.model
def test_the_readmes_example_runs_as_it_stands(tmp_path, monkeypatch):
    from emotion_concepts import corpus

    monkeypatch.chdir(tmp_path)
    # the whole corpus takes minutes
    small = corpus.load_stories("literary", topics=1).groupby("emotion", sort=False).head(1)[:12]
    neutral = corpus.load_neutral(limit=12)
    monkeypatch.setattr(corpus, "load_stories", lambda *_, **__: small)
    monkeypatch.setattr(corpus, "load_neutral", lambda *_, **__: neutral)
    [code] = re.findall(r"```python\n(.*?)```", (readme.ROOT / "README.md").read_text(), re.DOTALL)
    found: dict = {}
    exec(code, found)
    assert found["reading"].shape[1] == len(set(small.emotion)) == 12
    assert (tmp_path / "literary.safetensors").exists()
