import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from emotion_concepts import results
from emotion_concepts.errors import RegisterError
from emotion_concepts.stats import Estimate


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOTION_CONCEPTS_BUILD", str(tmp_path / "build"))
    return tmp_path


def register(r=0.5, verdict="supported"):
    made = results.Register("01_vectors", "org/model", "ci", {"seed": 0})
    made.add("r", Estimate(r, r - 0.1, r + 0.1, 45, 0.002), method="bootstrap", source="Fig. 8")
    made.add("count", np.int64(171))
    made.verdict("claim", verdict, claim="It holds.", criterion="r above .3", measure="r")
    return made


def test_claims_show_their_measure_beside_the_papers_number():
    made = register()
    made.add("theirs", 0.4, paper=0.81)
    made.verdict("other", "partly", claim="Another.", criterion="c", measure="theirs")
    made.verdict("bare", "partly", claim="No number.", criterion="c")
    claims = made.claims().set_index("claim")
    assert claims.loc["It holds.", ["paper", "value", "n", "verdict"]].tolist() == [
        "—", 0.5, 45, "supported",
    ]  # fmt: skip
    assert claims.loc["Another.", "paper"] == 0.81
    assert claims.value.isna().tolist() == [False, False, True]


def test_a_register_comes_back_as_it_was_saved(build):
    path = register().save()
    assert path == build / "build/results/org--model/01_vectors.json"
    assert results.Register.load(path) == register()


def test_tables_lie_beside_their_register_as_csv(build):
    made = register()
    shifts = pd.DataFrame({"direction": ["calm", "a, b"], "shift": [1 / 3, -2e-9], "n": [3, 40]})
    made.tables["shifts"] = shifts
    path = made.save()
    assert path == build / "build/results/org--model/01_vectors.json"
    [table] = path.with_suffix("").iterdir()
    assert table == build / "build/results/org--model/01_vectors/shifts.csv"
    pd.testing.assert_frame_equal(pd.read_csv(table), shifts, rtol=1e-5, atol=0)
    # the gate reads registers alone
    results.expect([build / "build/results"], build / "expected")
    assert results.compare(build / "build/results", build / "expected").empty


def test_a_table_that_cannot_be_written_leaves_all_as_it_was(build):
    class Torn(pd.DataFrame):
        def to_csv(self, path, **_):
            path.write_text("x\n")
            raise OSError("no space left")

    made = register()
    made.tables["shifts"] = pd.DataFrame({"x": [1, 2]})
    path = made.save()
    changed = register(0.7)
    changed.tables["shifts"] = Torn({"x": [3, 4]})
    with pytest.raises(OSError, match="no space"):
        changed.save()
    assert pd.read_csv(path.with_suffix("") / "shifts.csv").x.tolist() == [1, 2]
    assert results.Register.load(path)["r"].value == 0.5
    kept = [file.name for file in path.parent.rglob("*") if file.is_file()]
    assert sorted(kept) == ["01_vectors.json", "shifts.csv"]


def test_prose_takes_its_numbers_from_entries():
    text = "r = {r} ({r:.1f}; {r:ci}; {r:p}; n = {r:n}), {count} words: {claim}"
    filled = results.fill(text, register())
    assert filled == (
        "r = 0.50 [0.40, 0.60] (0.5; [0.40, 0.60]; p = 0.002; n = 45), 171 words: supported"
    )


def test_a_number_is_registered_once_and_must_be_one():
    made = register()
    with pytest.raises(RegisterError, match="already"):
        made.add("r", 1.0)
    with pytest.raises(RegisterError, match="no result"):
        made.add("x", float("nan"))
    with pytest.raises(RegisterError, match="no verdict 'suported'.*supported"):
        made.verdict("y", "suported", claim="", criterion="")
    with pytest.raises(RegisterError, match="did you mean count"):
        made["cuont"]


def test_a_zero_has_no_sign_in_prose():
    small = results.Entry(-0.001, -0.004, 0.2)
    assert f"{small}" == "0.00 [0.00, 0.20]" and f"{small:.3}" == "−0.001 [−0.004, 0.200]"
    assert f"{small:.0%}" == "0%" and f"{small:+.2f}" == "0.00"
    assert f"{results.Entry(-1234)}" == "−1,234"


@pytest.mark.parametrize("name", ["low", "high", "p"])
def test_what_comes_with_a_number_must_be_finite(name):
    with pytest.raises(RegisterError, match=f"{name} of 'x' is nan"):
        register().add("x", 0.5, **{name: np.float64(np.nan)})


def test_prose_that_asks_for_a_p_or_n_that_was_not_registered_fails():
    bare = results.Entry(0.5)
    for spec in ("p", "n"):
        with pytest.raises(RegisterError, match=f"0.5 was registered without {spec}"):
            format(bare, spec)


def test_nothing_has_no_verdict():
    with pytest.raises(RegisterError, match="no verdict on nothing"):
        results.graded([])


def test_prose_that_names_an_unknown_number_fails():
    with pytest.raises(RegisterError, match="not registered"):
        results.fill("{rr}", register())


def test_numbers_of_numpy_are_saved_as_numbers(build):
    made = results.Register("01_vectors", "org/model", "ci")
    made.add("r", np.float64(0.5), low=np.float64(0.25), high=np.float64(0.75), n=45)
    assert results.Register.load(made.save())["r"] == results.Entry(0.5, 0.25, 0.75, 45)


def runs(build, values, monkeypatch):
    folders = []
    for n, value in enumerate(values):
        monkeypatch.setenv("EMOTION_CONCEPTS_BUILD", str(build / f"run{n}"))
        register(value).save()
        folders.append(build / f"run{n}/results")
    return folders


def test_what_numpy_counts_and_tests_is_saved_and_comes_back(build):
    made = register()
    made.add("x", np.float32(0.5), n=np.int64(45), p=np.float64(0.25), paper=np.int64(3))
    entry = results.Register.load(made.save())["x"]
    assert (entry.value, entry.n, entry.p, entry.paper) == (0.5, 45, 0.25, 3)


def test_bands_come_from_runs_and_hold_the_next_one(build, monkeypatch):
    folders = runs(build, [0.50, 0.51, 0.49, 0.50, 0.505], monkeypatch)
    results.expect(folders, build / "expected")
    assert results.compare(folders[0], build / "expected").empty
    content = json.loads((build / "expected/org--model/ci/01_vectors.json").read_text())
    assert 0.46 < content["entries"]["r"]["band"][0] < 0.49
    assert content["entries"]["count"]["band"][1] == pytest.approx(171.171)
    assert len(content["runs"]) == 5
    again = results.Register.load(build / "expected/org--model/ci/01_vectors.json")
    assert again["claim"].allowed == ["supported"]
    again.entries["claim"] = replace(again["claim"], allowed=None)
    assert again == register()


def test_a_drifted_number_fails_the_gate(build, monkeypatch, capsys):
    folders = runs(build, [0.50, 0.51, 0.49, 0.50, 0.505], monkeypatch)
    results.expect(folders, build / "expected")
    monkeypatch.setenv("EMOTION_CONCEPTS_BUILD", str(build / "new"))
    register(0.6).save()
    drift = results.compare(build / "new/results", build / "expected")
    assert drift.key.tolist() == ["r"]
    assert drift.problem.str.startswith("off by +0.0").all()
    assert results.main(["compare", str(build / "new/results"), str(build / "expected")]) == 1
    assert "1 numbers drifted" in capsys.readouterr().out


def test_missing_new_and_changed_entries_fail_the_gate(build, monkeypatch):
    folders = runs(build, [0.5, 0.5], monkeypatch)
    results.expect(folders, build / "expected")
    monkeypatch.setenv("EMOTION_CONCEPTS_BUILD", str(build / "new"))
    changed = register(verdict="reversed")
    del changed.entries["r"]
    changed.add("extra", 1)
    changed.save()
    drift = results.compare(build / "new/results", build / "expected").set_index("key")
    assert drift.problem.to_dict() == {
        "claim": "was supported",
        "extra": "not expected",
        "r": "missing",
    }


def test_results_without_bands_are_an_error_that_names_the_command(build, monkeypatch, capsys):
    folders = runs(build, [0.5], monkeypatch)
    assert results.main(["compare", str(folders[0]), str(build / "nowhere")]) == 1
    assert "run.py expect" in capsys.readouterr().err
    with pytest.raises(RegisterError, match="no results"):
        results.compare(build / "empty", build / "nowhere")


def test_the_papers_numbers_name_their_figure():
    assert results.paper("pc1_pleasure_r")["paper"] == 0.81
    assert "Fig" in results.paper("pc1_pleasure_r")["source"]
    with pytest.raises(RegisterError, match="pc1_pleasure_r"):
        results.paper("pc1_plesure_r")
