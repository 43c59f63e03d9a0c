"""The reference of the library: every public module stands in it, every public name says enough."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from functools import cached_property

import pytest

import emotion_concepts
from run import ROOT

PAGES = sorted((ROOT / "book" / "api").glob("*.md"))
FOUND = pkgutil.walk_packages(emotion_concepts.__path__, "emotion_concepts.")
MODULES = [module.name for module in FOUND if not module.ispkg]
NOTHING = (None, "None", inspect.Signature.empty, "Iterator[None]")

# public functions without an example, by what keeps an example from being short
UNSHOWN = {
    "reads hundreds of texts": {
        "audit.context_levels",
        "experiments.extraction.both_registers",
        "experiments.validation.model_ratings",
        "prepare.prepared_baseline",
        "prepare.prepared_vectors",
    },
    "trains a model": {"finetuning.tune", "finetuning.tuned_model"},
    "fits for half a minute": {"geometry.umap_plane"},
    "needs a GPU": {"memory.free"},
    "serves a page": {"webpage.build", "webpage.serve"},
    "is a command, whose help is its docstring": {"frozen.main", "results.main"},
    "runs in the sandbox": {
        f"sandbox_child.{name}" for name in ("has_filters", "has_landlock", "libc", "lock", "run")
    },
}

each_module = pytest.mark.parametrize("module", MODULES)


def public(module: str) -> dict:
    """Return {name: function, class, method or property} of what a module itself defines."""
    held, found = vars(importlib.import_module(module)), {}
    for name, thing in held.items():
        kind = inspect.isroutine(thing) or inspect.isclass(thing)
        if kind and not name.startswith("_") and thing.__module__ == module:
            found[name] = thing
            if inspect.isclass(thing):
                inner = {own: getattr(thing, own) for own in vars(thing) if own[0] != "_"}
                found |= {f"{name}.{own}": member for own, member in inner.items() if says(member)}
    return found


def says(member) -> bool:
    """Return whether a member of a class is one that needs a docstring: no field, no constant."""
    return inspect.isroutine(member) or isinstance(member, property | cached_property)


def documented(text: str) -> list[str]:
    return re.findall(r"^\.\. automodule:: (\S+)$", text, re.MULTILINE)


def test_every_module_stands_in_the_reference_once():
    assert sorted(name for page in PAGES for name in documented(page.read_text())) == sorted(
        MODULES
    )


def test_the_overview_leads_to_every_module_and_page():
    text = (ROOT / "book" / "api.md").read_text()
    assert set(re.findall(r"\{py:mod\}`~(\S+?)`", text)) == set(MODULES)
    assert sorted(re.findall(r"\(api/(\w+)\.md\)", text)) == [page.stem for page in PAGES]


@each_module
def test_every_public_name_says_what_it_is(module):
    assert [name for name, thing in public(module).items() if not inspect.getdoc(thing)] == []


@each_module
def test_every_public_function_says_what_it_returns(module):
    silent = []
    for name, thing in public(module).items():
        if not inspect.isroutine(thing):
            continue
        function = getattr(thing, "__func__", thing)
        returned = getattr(function, "__annotations__", {}).get("return")
        said = re.search(r"\b([Rr]eturn|[Yy]ield)", inspect.getdoc(thing))
        if returned not in NOTHING and not said:
            silent.append(name)
    assert silent == []


def unshown(modules: list[str]) -> set[str]:
    """Return the public functions and classes without an example; a record needs none."""
    found = set()
    for module in modules:
        members = public(module)
        for name in [name for name in members if "." not in name]:
            thing = members[name]
            record = inspect.isclass(thing) and (
                issubclass(thing, Exception | tuple)
                or dataclasses.is_dataclass(thing)
                or inspect.isabstract(thing)
                or getattr(thing, "_is_protocol", False)
            )
            own = [member for inner, member in members.items() if inner.startswith(f"{name}.")]
            shown = any(">>> " in (inspect.getdoc(part) or "") for part in (thing, *own))
            if not record and not shown:
                found.add(f"{module}.{name}".removeprefix("emotion_concepts."))
    return found


def test_every_public_function_and_class_shows_how_it_is_used():
    assert unshown(MODULES) == set().union(*UNSHOWN.values())


def test_a_silent_function_would_be_seen(monkeypatch):
    from emotion_concepts import spans

    def silent() -> int:
        """Count."""

    silent.__module__ = spans.__name__
    monkeypatch.setattr(spans, "silent", silent, raising=False)
    with pytest.raises(AssertionError, match="silent"):
        test_every_public_function_says_what_it_returns(spans.__name__)
    assert unshown([spans.__name__]) == {"spans.silent"}
