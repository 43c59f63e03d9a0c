"""One NDIF server for all tests here, apart from any that is running for other work."""

import pytest

from emotion_concepts import models
from run import Problem
from tools import ndif

WHY = pytest.StashKey[str]()


def pytest_ignore_collect(collection_path, config):
    """A server takes minutes and gigabytes: only a run that names the mark starts one."""
    return None if "remote" in config.getoption("markexpr") else True


def pytest_terminal_summary(terminalreporter, config):
    if why := config.stash.get(WHY, None):
        terminalreporter.section("NDIF WAS NOT TESTED", sep="!", red=True)
        terminalreporter.write_line(why)


@pytest.fixture(scope="session")
def server(tmp_path_factory, pytestconfig):
    """A running server; where the machine lacks what it needs, a skip that is not overlooked."""
    folder = tmp_path_factory.mktemp("ndif")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ndif, "STATE", folder / "state.json")
        patch.setattr(ndif, "LOGS", folder / "log")
        patch.setenv("HF_HUB_OFFLINE", "1")  # a folder needs no hub, and nothing else is run
        try:
            ndif.check_machine()
        except Problem as problem:
            pytestconfig.stash[WHY] = str(problem)
            pytest.skip(str(problem))
        try:
            yield ndif.start()
        finally:
            ndif.stop()


@pytest.fixture(scope="session")
def far(server):
    """The packaged model on the server."""
    return models.load_model(remote=server.url)
