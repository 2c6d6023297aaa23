"""The page as a reader uses it, in headless Chromium, from a file and without network."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightsae.evaluation import EvaluationResult
from lightsae.report import ReportOptions, build_report

from .chromium import Chromium
from .conftest import CLASSES
from .helpers import E, write_images, write_run, write_shards
from .page.test_page import ODD, write_odd

pytestmark = pytest.mark.slow
ROWS = "[...document.querySelectorAll('.row')]"
IN_ORDER = f"{ROWS}.sort((a, b) => a.dataset.place - b.dataset.place).map(r => +r.dataset.latent)"
COUNT = "document.querySelector('#count').textContent"
OPEN = "document.querySelector('dialog').open"
TITLE = "document.querySelector('#latent-title')?.textContent"


def gallery(chromium: Chromium, page: Path, support: str = "0") -> None:
    """Open a page at its latents, all of them unless told otherwise."""
    chromium.open(page)
    chromium.ask("document.querySelector('#latents').scrollIntoView({behavior: 'instant'})")
    chromium.choose("#support", support)
    chromium.wait_for("document.querySelector('.row, .empty')")


def scores(run: Path, name: str = f"ms/{E}") -> list[float]:
    return EvaluationResult.load(run).latents[name].tolist()


def test_latents_come_by_ms_and_are_sorted_by_what_is_chosen(chromium, page, made):
    gallery(chromium, page)
    ms = scores(made.baseline)
    scored = [latent for latent in range(32) if ms[latent] == ms[latent]]
    best = sorted(scored, key=lambda latent: (-ms[latent], latent))
    assert chromium.ask(IN_ORDER)[:8] == best[:8]
    chromium.click("#direction")
    assert chromium.ask(IN_ORDER)[:8] == sorted(scored, key=lambda j: (ms[j], j))[:8]
    chromium.click("#direction")
    chromium.choose("#sort", "firings")
    firings = scores(made.baseline, "firings")
    often = sorted(range(32), key=lambda latent: (-firings[latent], latent))
    assert chromium.ask(IN_ORDER)[:8] == often[:8]
    chromium.choose("#sort", "number")
    assert chromium.ask(IN_ORDER)[:4] == [0, 1, 2, 3]


def test_sorted_by_the_change_against_another_run(chromium, page, made):
    gallery(chromium, page)
    chromium.choose("#run", "1")
    chromium.choose("#sort", "change/0")
    here, there = scores(made.reg), scores(made.baseline)
    change = {
        j: here[j] - there[j] for j in range(32) if here[j] == here[j] and there[j] == there[j]
    }
    order = sorted(change, key=lambda j: (-round(change[j], 5), j))
    shown = chromium.ask(IN_ORDER)[:6]
    assert [round(change[j], 4) for j in shown] == [round(change[j], 4) for j in order[:6]]


def test_a_random_order_is_another_one_each_time_but_the_same_latents(chromium, page):
    gallery(chromium, page)
    chromium.choose("#sort", "random")
    first = chromium.ask("document.querySelector('#count').textContent")
    one = chromium.ask(IN_ORDER)
    chromium.click("#direction")
    assert chromium.ask(IN_ORDER) != one
    assert chromium.ask(COUNT) == first == "32 latents"


def test_search_finds_numbers_and_classes(chromium, page, made):
    gallery(chromium, page)
    chromium.press("/")
    assert chromium.ask("document.activeElement.id") == "search"
    chromium.type("#7")
    assert chromium.ask(IN_ORDER) == [7]
    chromium.ask("document.querySelector('#search').value = ''")
    chromium.type("tabby &")
    main = EvaluationResult.load(made.baseline).latents["main_class"].tolist()
    assert sorted(chromium.ask(IN_ORDER)) == [j for j in range(32) if main[j] == 1][:40]
    chromium.type("zebra")
    assert chromium.ask(COUNT) == "0 of 32 latents"
    assert "No latent" in chromium.ask("document.querySelector('#list').textContent")


def test_filters(chromium, page, made):
    result = EvaluationResult.load(made.baseline)
    firings, main = result.latents["firings"], result.latents["main_class"]
    gallery(chromium, page)
    chromium.choose("#status", "dead")
    assert sorted(chromium.ask(IN_ORDER)) == (firings == 0).nonzero().squeeze(1).tolist()
    chromium.choose("#status", "all")
    chromium.choose("#class", "2")
    assert chromium.ask(COUNT) == f"{int((main == 2).sum())} of 32 latents"


def test_latents_that_fire_on_few_images_are_left_out_at_first_and_said_to_be(chromium, page):
    chromium.open(page)
    assert "fire on fewer than 10 images" in chromium.ask(COUNT)
    chromium.click("button.plain")
    assert chromium.ask(COUNT) == "32 latents"


def test_opened_and_closed_by_mouse(chromium, page):
    gallery(chromium, page)
    chromium.choose("#sort", "firings")
    first = chromium.ask(IN_ORDER)[0]
    chromium.click(f".row[data-latent='{first}']")
    chromium.wait_for(OPEN)
    assert chromium.ask(TITLE) == f"Latent {first} in baseline"
    for heading in ("Strongest", "Middle", "Weakest", "Activations", "Classes of these images",
                    "Nearest by decoder", "The same latent in other runs"):  # fmt: skip
        assert heading in chromium.ask("document.querySelector('dialog').textContent"), heading
    chromium.click("button[aria-label=Close]")
    chromium.wait_for(f"!{OPEN}")


def test_opened_moved_and_closed_by_keys_and_the_focus_comes_back(chromium, page):
    gallery(chromium, page)
    order = chromium.ask(IN_ORDER)
    chromium.ask("document.querySelector('#search').focus()")
    chromium.press("ArrowDown")
    chromium.press("ArrowDown")
    assert chromium.ask("+document.activeElement.dataset.latent") == order[1]
    chromium.press("ArrowUp")
    chromium.press("Enter")
    chromium.wait_for(OPEN)
    assert chromium.ask(TITLE) == f"Latent {order[0]} in baseline"
    for key, place in [("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowLeft", 0),
                       ("ArrowRight", 1)]:  # fmt: skip
        chromium.press(key)
        assert chromium.ask(TITLE) == f"Latent {order[place]} in baseline"
    chromium.press("Escape")
    chromium.wait_for(f"!{OPEN}")
    chromium.wait_for(f"+document.activeElement.dataset.latent === {order[1]}")
    chromium.press("End")
    chromium.wait_for("+document.activeElement.dataset.place === 31")
    chromium.press("Home")
    chromium.wait_for("+document.activeElement.dataset.place === 0")


def test_a_button_of_an_open_latent_is_pressed_again_and_again(chromium, page):
    gallery(chromium, page)
    order = chromium.ask(IN_ORDER)
    chromium.ask(f"location.hash = '#latent-0-{order[0]}'")
    chromium.wait_for(OPEN)
    chromium.ask("document.querySelector('button[aria-label=\"Next latent\"]').focus()")
    for place in (1, 2, 3):
        chromium.press("Enter")
        assert chromium.ask(TITLE) == f"Latent {order[place]} in baseline"
    chromium.ask("document.querySelector('dialog .near a').click()")
    chromium.press("ArrowRight")  # behind a link the keys work too
    assert chromium.ask("document.querySelector('dialog').contains(document.activeElement)")


def test_the_press_that_ends_a_naming_is_not_lost(chromium, page):
    gallery(chromium, page)
    first, second = chromium.ask(IN_ORDER)[:2]
    chromium.ask(f"location.hash = '#latent-0-{first}'")
    chromium.wait_for(OPEN)
    chromium.ask("document.querySelector('.naming input').focus()")
    chromium.type("stripes")
    chromium.click("button[aria-label='Next latent']")
    assert chromium.ask(TITLE) == f"Latent {second} in baseline"
    chromium.press("ArrowLeft")
    assert chromium.ask(TITLE) == f"stripes · #{first} in baseline"
    chromium.ask("localStorage.clear()")


def test_tab_stays_within_an_open_latent(chromium, page):
    chromium.open(page, "#latent-0-3")
    chromium.wait_for(OPEN)
    for _ in range(12):
        chromium.press("Tab")
        inside = "document.querySelector('dialog').contains(document.activeElement)"
        assert chromium.ask(f"{inside} || document.activeElement === document.body")


def test_an_address_opens_a_latent_and_a_neighbour_is_one_click_away(chromium, page):
    chromium.open(page, "#latent-1-5")
    chromium.wait_for(OPEN)
    assert chromium.ask(TITLE) == "Latent 5 in reg"
    there = chromium.ask("document.querySelector('dialog .near a').getAttribute('href')")
    chromium.ask("document.querySelector('dialog .near a').click()")
    assert chromium.ask("location.hash") == there
    assert chromium.ask(TITLE) == f"Latent {there.split('-')[2]} in reg"


def test_class_names_are_text(chromium, page):
    gallery(chromium, page)
    chromium.choose("#class", "0")
    assert CLASSES[0] in chromium.ask("document.querySelector('#list').textContent")
    assert chromium.ask("document.querySelectorAll('#list script, option script').length") == 0
    chromium.ask("document.querySelector('.row').click()")
    chromium.wait_for(OPEN)
    assert CLASSES[0] in chromium.ask("document.querySelector('dialog').textContent")
    assert chromium.ask("document.querySelectorAll('dialog script').length") == 0


def test_every_image_has_a_text_and_every_control_a_name(chromium, page):
    chromium.open(page, "#latent-0-3")
    chromium.wait_for(OPEN)
    assert chromium.ask("document.querySelectorAll('.tile').length") > 50
    unnamed = (
        "[...document.querySelectorAll('.tile, svg, img, dialog')].filter(e => "
        "!e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby')).length"
    )
    assert chromium.ask(unnamed) == 0
    nameless = (
        "[...document.querySelectorAll('button, select, input')].filter(e => !e.textContent.trim()"
        " && !e.getAttribute('aria-label') && !e.labels?.length).length"
    )
    assert chromium.ask(nameless) == 0


def test_images_are_drawn_and_not_grey(chromium, page, tmp_path):
    from PIL import Image

    gallery(chromium, page)
    box = chromium.ask(
        "(() => { const b = document.querySelector('.row .tile').getBoundingClientRect();"
        "return [b.left, b.top, b.right, b.bottom]; })()"
    )
    chromium.ask("new Promise(r => setTimeout(r, 200))")
    shot = Image.open(chromium.screenshot(tmp_path / "shot.png")).convert("RGB")
    colours = shot.crop(tuple(map(round, box))).getcolors(100_000)
    assert colours is not None
    assert len(colours) > 20


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_wider_than_a_phone(chromium, page, dark):
    chromium.resize(390, 844, dark=dark, phone=True)
    chromium.open(page)
    wide = "document.documentElement.scrollWidth"
    assert chromium.ask(wide) == 390
    chromium.ask("document.querySelector('#latents').scrollIntoView({behavior: 'instant'})")
    chromium.wait_for("document.querySelector('.row')")
    ground = chromium.ask("getComputedStyle(document.documentElement).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") != dark
    chromium.ask("document.querySelector('.row').click()")
    chromium.wait_for(OPEN)
    assert chromium.ask("document.querySelector('dialog').scrollWidth") == 390


def test_the_button_switches_between_light_and_dark(chromium, page):
    chromium.open(page)
    chromium.click("#theme")
    assert chromium.ask("document.documentElement.dataset.theme") == "dark"
    chromium.click("#theme")
    assert chromium.ask("document.documentElement.dataset.theme") == "light"


def test_figures_are_drawn_with_one_line_per_run(chromium, page):
    chromium.open(page)
    figures = chromium.ask("[...document.querySelectorAll('.chart')].map(f => f.dataset.chart)")
    for name in ("rank_profile", "k_robustness", "firing_density", f"ms_histogram/{E}",
                 "training/train/r2", "sweep/ms_r2"):  # fmt: skip
        assert name in figures, name
    lines = "document.querySelectorAll('[data-chart=rank_profile] path').length"
    assert chromium.ask(lines) == 2
    numbers = "document.querySelector('[data-chart=rank_profile] details')"
    chromium.ask(f"{numbers}.open = true")
    chromium.wait_for(f"{numbers}.querySelectorAll('tr').length === 7")


def test_the_legend_has_an_entry_for_each_setting(chromium, tmp_path):
    shards = write_shards(tmp_path / "shards", None, 240, ["a", "b", "c"])
    for seed in (0, 1):
        write_run(tmp_path / f"runs/base-{seed}", shards, seed=seed)
        write_run(tmp_path / f"runs/reg-{seed}", shards, seed=seed, weight=0.5)
    page = build_report(ReportOptions([tmp_path / "runs"], tmp_path / "page.html"))
    chromium.open(page)
    chart = "document.querySelector('[data-chart=rank_profile]')"
    chromium.wait_for(f"{chart}.querySelectorAll('path').length === 4")
    told = f"[...{chart}.querySelectorAll('.legend li')].map(each => each.textContent)"
    assert chromium.ask(told) == ["baseline", "L1L2Ratio, λ 0.5"]


def test_a_name_given_to_a_latent_is_found(chromium, page):
    chromium.open(page, "#latent-0-3")
    chromium.wait_for(OPEN)
    chromium.ask("document.querySelector('.naming input').focus()")
    chromium.type("<b>round things</b>")
    chromium.press("Tab")
    assert chromium.ask(TITLE) == "<b>round things</b> · #3 in baseline"
    chromium.press("Escape")
    chromium.wait_for(f"!{OPEN}")
    chromium.choose("#status", "named")
    assert chromium.ask(IN_ORDER) == [3]
    chromium.choose("#status", "all")
    chromium.ask("document.querySelector('#search').focus()")
    chromium.type("round")
    assert chromium.ask(IN_ORDER) == [3]


def test_the_rank_profile_has_a_line_at_k(chromium, page):
    chromium.open(page)
    line = "document.querySelector('[data-chart=rank_profile] .mark')"
    chromium.wait_for(line)
    # Ranks are 1, 2 and 4 on a logarithmic axis, k is 4: the line is at its end.
    ends = f"+{line}.getAttribute('x1') / document.querySelector('.chart svg').clientWidth"
    assert chromium.ask(ends) > 0.9


def test_heat_maps_lie_over_patches_and_can_be_taken_away(chromium, made, tmp_path):
    page = build_report(ReportOptions([made.patches], tmp_path / "page.html"))
    gallery(chromium, page)
    chromium.ask("document.querySelector('.row').click()")
    chromium.wait_for(OPEN)
    size = "(c => c && [c.width, c.height])(document.querySelector('dialog canvas'))"
    assert chromium.ask(size) == [3, 3]
    chromium.click("dialog input[type=checkbox]")
    assert chromium.ask("document.querySelectorAll('dialog canvas').length") == 0


def test_without_images_there_are_numbers_of_samples(chromium, made, tmp_path):
    folder = shutil.copytree(made.baseline, tmp_path / "alone")
    shards = write_shards(tmp_path / "shards", None, 60, ["a", "b"])
    run = write_run(folder, shards)
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    gallery(chromium, page)
    assert chromium.ask("document.querySelectorAll('.tile.number').length") > 0
    assert not chromium.ask("document.querySelector('#no-images').hidden")
    assert "do not say which images" in chromium.ask("document.querySelector('.notes').textContent")


@pytest.mark.parametrize("kind", ODD)
def test_a_page_of_which_little_is_known_has_no_errors(kind, chromium, tmp_path):
    run = write_odd(kind, tmp_path / "run")
    page = build_report(ReportOptions([run], tmp_path / "page.html"))
    gallery(chromium, page)
    chromium.ask("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    for sort in chromium.ask("[...document.querySelectorAll('#sort option')].map(o => o.value)"):
        chromium.choose("#sort", sort)
        assert chromium.ask(IN_ORDER) == [0]
    chromium.ask("document.querySelector('.row').click()")
    chromium.wait_for(OPEN)
    told = chromium.ask("document.querySelector('dialog').textContent")
    assert not any(word in told for word in ("NaN", "undefined%", "Infinity", "null"))
    assert "0%" not in told or kind == "large numbers"  # where rows are not known, nor is the share


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """8192 latents with ten images each, of 2,000 images of 48 x 48."""
    folder = tmp_path_factory.mktemp("large")
    classes = [f"class {number}" for number in range(50)]
    images = write_images(folder / "images.npz", 4000, classes, side=48)
    shards = write_shards(folder / "shards", images, 4000, classes, d_in=16)
    run = write_run(folder / "run", shards, d_sae=8192, k=32)
    return SimpleNamespace(page=build_report(ReportOptions([run], folder / "page.html")))


def test_8192_latents_are_below_25_megabytes_and_open_in_two_seconds(chromium, large):
    assert large.page.stat().st_size < 25e6
    chromium.resize(1280, 900)
    chromium.open(large.page)
    # Its own time on the processor: other work of this machine is not the page's.
    assert chromium.processor_seconds() < 2
    chromium.choose("#support", "0")
    assert chromium.ask(COUNT) == "8,192 latents"


def test_only_rows_in_view_are_drawn_wherever_one_scrolls(chromium, large):
    gallery(chromium, large.page)
    chromium.resize(1280, 900)
    whole = "document.documentElement.scrollHeight"
    for share in (0.0, 0.3, 0.99, 0.5):
        chromium.ask(f"scrollTo({{top: {whole} * {share}, behavior: 'instant'}})")
        chromium.ask("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
        assert chromium.ask(f"{ROWS}.length") < 40
        places = chromium.ask(f"{ROWS}.map(row => +row.dataset.place)")
        assert places == sorted(places)  # Tab goes from row to row
    seen = (
        f"{ROWS}.some(r => (b => b.top < innerHeight && b.bottom > 0)(r.getBoundingClientRect()))"
    )
    assert chromium.ask(seen)
