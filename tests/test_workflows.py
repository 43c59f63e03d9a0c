"""The workflows as files: what they run exists, how long they may take, what they are allowed."""

import importlib.util
import json
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

import dodo
import run

WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((run.ROOT / ".github" / "workflows").glob("*.yml"))
}
JOBS = {
    f"{name}:{job}": content
    for name, workflow in WORKFLOWS.items()
    for job, content in workflow["jobs"].items()
}
LONGEST = 360  # minutes that GitHub gives a job
ASKED_FOR = {"pages:deploy": {"pages": "write", "id-token": "write"}}

each_workflow = pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)
each_job = pytest.mark.parametrize("job", JOBS)


def steps(key: str) -> list:
    return [step[key] for job in JOBS.values() for step in job["steps"] if key in step]


def commands() -> list[list[str]]:
    """Return the words of every command of every step."""
    lines = [line for text in steps("run") for line in text.splitlines() if line.strip()]
    return [shlex.split(line) for line in lines]


def after(*start: str) -> list[list[str]]:
    """Return what follows in the commands that begin like this."""
    found = [words[len(start) :] for words in commands() if words[: len(start)] == [*start]]
    assert found, f"no workflow runs {' '.join(start)}"
    return found


def triggers(name: str) -> dict:
    return WORKFLOWS[name][True]  # YAML reads `on` as a truth value


def test_there_are_checks_of_changes_of_the_world_and_a_publication():
    assert {"pull_request", "push"} == triggers("ci").keys()
    assert {"schedule", "workflow_dispatch"} == triggers("weekly").keys()
    assert triggers("pages") == {"push": {"tags": ["v*"]}}


@each_workflow
def test_a_workflow_may_read_the_repository_and_nothing_more(workflow):
    assert workflow["permissions"] == {"contents": "read"}


@each_job
def test_a_job_that_is_allowed_more_is_known(job):
    assert JOBS[job].get("permissions") == ASKED_FOR.get(job)


@each_workflow
def test_two_runs_of_one_kind_do_not_run_side_by_side(workflow):
    assert workflow["concurrency"]["group"]


@each_job
def test_a_job_has_an_end(job):
    assert 0 < JOBS[job]["timeout-minutes"] <= LONGEST


def test_actions_are_those_of_github_at_a_major_version():
    odd = [action for action in steps("uses") if not re.fullmatch(r"actions/[a-z-]+@v\d+", action)]
    assert odd == []
    named = [action.split("@") for action in steps("uses")]
    assert len({action for action, _ in named}) == len({(a, version) for a, version in named})


def test_no_command_holds_what_a_stranger_can_write():
    assert [text for text in steps("run") if "${{" in text] == []


def test_every_command_of_run_py_parses():
    chosen = [run.parse(words) for words in after("python", "run.py")]
    assert {arguments.command for arguments in chosen} == {"test", "book"}
    [book] = [arguments for arguments in chosen if arguments.command == "book"]
    assert book.profile == "full" and book.only is None and book.parameters == []


@pytest.mark.parametrize("module", sorted({words[2] for words in commands() if words[1] == "-m"}))
def test_every_module_that_is_run_exists(module):
    if module == "tools.mutants" and not (run.ROOT / "tools" / "mutants.py").exists():
        pytest.skip("tools.mutants is not there yet")
    assert importlib.util.find_spec(module), module


def test_every_task_of_doit_exists():
    for words in after("python", "-m", "doit", "-f", "dodo.py"):
        *tasks, settings = [word for word in words if not word.startswith("-")]
        assert json.loads(settings.removeprefix("settings="))["profile"] in run.PROFILES
        for task in tasks:
            name, _, chapter = task.partition(":")
            assert hasattr(dodo, f"task_{name}"), task
            assert not chapter or (run.ROOT / "notebooks" / f"{chapter}.ipynb").exists(), task


def test_every_file_that_pip_is_told_of_exists_and_every_extra_is_declared():
    project = tomllib.loads((run.ROOT / "pyproject.toml").read_text())["project"]
    for words in after("python", "-m", "pip"):
        for option, value in pairwise(words):
            if option == "-c":
                assert (run.ROOT / value).exists(), value
        for extras in re.findall(r"\.\[([\w,]+)\]", " ".join(words)):
            assert set(extras.split(",")) <= project["optional-dependencies"].keys(), extras


def test_the_latest_dependencies_are_not_constrained_and_come_from_the_index():
    installs = [step.get("run", "") for step in JOBS["weekly:latest"]["steps"]]
    installs = [text for text in installs if "pip install" in text]
    assert installs and all("-c " not in text and "run.py" not in text for text in installs)
    assert WORKFLOWS["weekly"]["env"]["PIP_NO_CACHE_DIR"] == "1"


def test_colab_s_versions_are_fetched_resolved_and_installed_before_anything_else():
    job = [step["run"] for step in JOBS["weekly:colab"]["steps"] if "run" in step]
    order = ["--fetch", "--dry-run -c", "-c tools/colab-packages.txt -e .", "pytest", " register "]
    places = [next(n for n, text in enumerate(job) if word in text) for word in order]
    assert places == sorted(places)
    python = next(
        step["with"]["python-version"] for step in JOBS["weekly:colab"]["steps"] if "with" in step
    )
    assert f"# python: {python}\n" in (run.ROOT / "tools" / "colab-packages.txt").read_text()


def test_what_is_published_is_what_was_built():
    [upload] = [
        step["with"]["path"]
        for step in JOBS["pages:build"]["steps"]
        if "upload-pages-artifact" in step.get("uses", "")
    ]
    assert Path(run.ROOT / upload) == dodo.BOOK.site
    assert JOBS["pages:deploy"]["needs"] == "build"
