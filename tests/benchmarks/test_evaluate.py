"""The benchmark of an evaluation runs every pass over the same rows, and tells their ratio."""

from lightsae.evaluation import EvaluationResult


def test_each_pass_is_measured_beside_the_one_that_encodes(beside, tmp_path, capsys):
    program = beside("evaluate")
    sizes = {"rows": 200, "d_in": 8, "d_sae": 32, "k": 4, "d_e": 6, "batch": 64}
    passes = program.prepare(tmp_path, sizes)
    names = ["encode", "evaluate", "lightsae test", "lightsae test, Reg 2"]
    assert list(passes) == names
    assert passes["evaluate"]().about["rows"] == 200
    passes["lightsae test"]()
    assert EvaluationResult.load(tmp_path).about["rows"] == 200
    rounds = {name: [program.Times(2.0, 1.0)] for name in passes}
    rounds["evaluate"] = [program.Times(3.0, 2.0)]
    program.report(sizes, rounds, tmp_path / "evaluate.csv")
    assert (
        "evaluate, processors: 2.00 s, 2.00 of encode (goal: at most 2.0)"
        in capsys.readouterr().out
    )
    assert (tmp_path / "evaluate.csv").is_file()
