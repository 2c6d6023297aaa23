"""The stability of seeds on the page."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightsae.dictionaries import StabilityResult, measure_stability
from lightsae.errors import LightsaeError
from lightsae.report import ReportOptions, build_report
from lightsae.report.figures.stability_charts import stability_charts
from lightsae.report.stability_summary import stability_tables
from lightsae.sae import SparseAutoencoder, TopK

from ..chromium import Chromium

NAME = "<script>alert(1)"


@pytest.fixture(scope="module")
def result() -> StabilityResult:
    torch.manual_seed(0)
    saes = [SparseAutoencoder(6, 12, TopK(3)) for _ in range(3)]
    with torch.no_grad():
        saes[1].W_dec[:4] = saes[0].W_dec[:4]
        saes[2].W_dec[:4] = saes[0].W_dec[:4]
    columns = {NAME: [torch.rand(12) for _ in saes]}
    return measure_stability(saes, [torch.randn(300, 6)], columns=columns)


def test_tables_hold_what_was_measured(result: StabilityResult) -> None:
    stability, sets = stability_tables(result)
    assert stability.columns == ["0.5", "0.6", "0.7", "0.8", "0.9"]
    names = ["by decoder rows", "by co-firing", "by correlation", "co-firing by chance",
             "correlation by chance", "random", "random, as decoder rows spread"]  # fmt: skip
    assert [name for name, _ in stability.rows] == names
    for (value, _), interval in zip(stability.rows[0][1], result.mean_stability(), strict=True):
        assert float(value) == pytest.approx(interval.mean, abs=5e-4)
    told = dict(sets.rows)
    share = result.shares()["stable"]["share"].mean
    assert float(told["share of the reconstruction"][0][0]) == pytest.approx(share, abs=5e-4)
    difference = result.differences()[NAME].difference.mean
    assert float(told[NAME][2][0]) == pytest.approx(difference, rel=2e-3, abs=5e-4)


def test_charts_are_over_thresholds_frequency_and_seeds(result: StabilityResult) -> None:
    thresholds, frequency, shares = stability_charts(result)
    assert thresholds.series[0].y == [each.mean for each in result.mean_stability()]
    assert [series.entry for series in frequency.series] == ["0.5", "0.6", "0.7", "0.8", "0.9"]
    assert [series.x for series in shares.series] == [[1, 2, 3]] * 3
    latents = result.reconstruction[0].latents
    assert shares.series[0].y[0] == latents[0] / sum(latents)


def test_a_page_of_a_comparison_alone_is_escaped(result: StabilityResult, tmp_path: Path) -> None:
    result.save(tmp_path / "seeds")
    page = build_report(ReportOptions([tmp_path / "seeds"], tmp_path / "page.html")).read_text()
    assert NAME not in page and "&lt;script&gt;alert(1)" in page
    assert '<h1 id="stability-title">Stability</h1>' in page
    assert "<td>" in page and "3 seeds of d_sae 12 over 300 rows" in page
    plain = re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)
    assert 'id="compare"' not in plain and 'id="steering"' not in plain
    for name in ("stability/0/thresholds", "stability/0/frequency", "stability/0/shares"):
        assert name in page


def test_measures_and_baselines_that_are_missing_are_left_out(
    result: StabilityResult, tmp_path: Path
) -> None:
    few = replace(result, baselines={}, shuffled={})
    few.save(tmp_path / "seeds")
    names = [name for name, _ in stability_tables(few)[0].rows]
    assert names == ["by decoder rows", "by co-firing", "by correlation"]
    assert len(stability_charts(few)[0].series) == 3
    assert build_report(ReportOptions([tmp_path / "seeds"], tmp_path / "page.html")).is_file()


def test_a_folder_of_runs_that_holds_a_stability_too_is_both(
    result: StabilityResult, tmp_path: Path
) -> None:
    result.save(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "evaluation.json").write_text("{}")
    with pytest.raises(LightsaeError, match=r"evaluation\.json"):
        build_report(ReportOptions([tmp_path], tmp_path / "page.html"))


def test_its_figures_are_drawn_and_the_page_complains_of_nothing(
    chromium: Chromium, result: StabilityResult, tmp_path: Path
) -> None:
    result.save(tmp_path / "seeds")
    chromium.open(build_report(ReportOptions([tmp_path / "seeds"], tmp_path / "page.html")))
    shares = "document.querySelector('[data-chart=\"stability/0/shares\"]')"
    chromium.wait_for(f"{shares}.querySelectorAll('circle').length >= 9")
    texts = f"[...{shares}.querySelectorAll('svg text[text-anchor=middle]')]"
    assert chromium.ask(f"{texts}.map(each => each.textContent)")[:3] == ["1", "2", "3"]
    assert chromium.ask("document.querySelectorAll('#stability tbody tr').length") == 13
    chromium.resize(390, 844, phone=True)
    assert chromium.ask("document.documentElement.scrollWidth") == 390
