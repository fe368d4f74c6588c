"""The raters' page in a real browser: whole sessions by mouse, keyboard and touch, and what may go wrong."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import PROGRAM, Browser, Tab, chromium
from turing_kits import output

from bids_alphagan.cli.turing import main
from bids_alphagan.common.files import read_tsv

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs the browser chromium")
N = 14


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("turing")
    words = ["make", str(output(place / "out")), str(place / "kit"), "--n-real", "6", "--n-per-model", "4"]
    assert main(words) == 0
    return place / "kit"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def page(browser: Browser, kit: Path) -> Iterator[Path]:
    """The page, for a browser that has never seen it."""
    with browser.apart():
        yield kit / "turing.html"


def begin(tab: Tab, rater: str) -> None:
    tab.write("#rater", rater)
    tab.js("expertise.value = 'medium'")
    tab.click("#unseen")
    tab.click("#form button")
    tab.wait("!document.getElementById('scan').hidden")


def state(tab: Tab) -> dict[str, Any]:
    """The session as the browser keeps it."""
    kept = json.loads(tab.js("Object.values(localStorage)[0]"))
    return next(one for one in kept["sessions"] if one["session"] == kept["current"])


def title(tab: Tab) -> str:
    return tab.js("document.getElementById('scan-title').textContent")


def answer(tab: Tab, said: str, confidence: int) -> None:
    before = title(tab)
    tab.click(f"label:has(input[value={said}])")
    tab.click(f"label:has(input[name=confidence][value='{confidence}'])")
    tab.click("#next")
    tab.wait(f"document.getElementById('scan-title').textContent !== {json.dumps(before)}")


def shown(tab: Tab) -> list[int]:
    """The canvas' grey values, coarsely."""
    return tab.js(
        "(()=>{const c=document.getElementById('canvas'),d=c.getContext('2d')"
        ".getImageData(0,0,c.width,c.height).data,o=[];"
        "for(let i=0;i<d.length;i+=4*97)o.push(d[i]);return o})()"
    )


def truth(kit: Path) -> dict[str, str]:
    key = json.loads(kit.with_name("kit-key.json").read_text())
    return {name: scan["Truth"] for name, scan in key["Scans"].items()}


def fetch(tab: Tab, browser: Browser, folder: Path, button: str = "#download") -> Path:
    browser.downloads_to(folder)
    tab.click(button)
    end = time.monotonic() + 20
    while not (found := [path for path in folder.glob("*.json") if path.stat().st_size]):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found[0]


def test_a_whole_session_with_the_tab_closed_in_between(
    browser: Browser, kit: Path, page: Path, tmp_path: Path
) -> None:
    """By mouse, then by keyboard; one miss of each kind; downloaded and scored."""
    names, wrong = truth(kit), {"real": 1, "sigmarat1": 2, "sigmarat2": 0}
    tab = browser.tab(page)
    begin(tab, "Žofie  Ø")
    order = state(tab)["order"]
    assert sorted(order) == sorted(names)

    def said(name: str) -> str:
        miss = wrong[names[name]] > 0
        wrong[names[name]] -= 1
        return "real" if (names[name] == "real") != miss else "synthetic"

    for name in order[:5]:
        answer(tab, said(name), 4)
    assert title(tab) == f"Scan 6 of {N}"
    tab.click("label:has(input[value=synthetic])")  # chosen, not confirmed
    image = shown(tab)
    tab.close()

    tab = browser.tab(page)
    assert "Žofie Ø: 5 of 14 scans are answered." in tab.js("document.getElementById('resume').innerText")
    assert tab.js("document.getElementById('form').hidden")
    tab.click("#go-on")
    assert title(tab) == f"Scan 6 of {N}"
    assert shown(tab) == image
    assert state(tab)["order"] == order
    assert tab.js("document.querySelector('input[name=answer]:checked').value") == "synthetic"
    for name in order[5:]:
        tab.key("r" if said(name) == "real" else "s")
        tab.key("4")
        tab.key("Enter")
    tab.wait("!document.getElementById('end').hidden")
    assert tab.js("wrong") == []
    assert tab.js("performance.getEntriesByType('resource').length") == 0
    file = fetch(tab, browser, tmp_path)
    assert file.name.startswith("answers_ofie_")
    assert json.loads(tab.js("document.getElementById('answers-text').value")) == json.loads(file.read_text())
    tab.close()

    assert main(["score", str(kit), str(file), "--out", str(tmp_path / "scores")]) == 0
    row = read_tsv(tmp_path / "scores" / "table3.tsv")[0]
    assert (row["rater"], row["expertise"], row["years"]) == ("Žofie Ø", "medium", "n/a")
    assert [row[f"{kind}_misclassified"] for kind in wrong] == ["1", "2", "0"]
    assert row["right"] == "11"


def test_a_browser_that_was_ended_goes_on(kit: Path, tmp_path: Path) -> None:
    page, kept = kit / "turing.html", []
    for start in range(2):
        with chromium(tmp_path / "profile") as browser:
            tab = browser.tab(page)
            if start == 0:
                begin(tab, "A")
            else:
                tab.click("#go-on")
            assert title(tab) == f"Scan {2 * start + 1} of {N}"
            answer(tab, "real", 2)
            answer(tab, "synthetic", 3)
            kept.append(state(tab))
            time.sleep(1)  # Chromium writes its storage to the disk now and then
    assert kept[0]["order"] == kept[1]["order"]
    assert kept[1]["answers"][:2] == kept[0]["answers"]


def test_every_rater_gets_another_order_and_answers_once(browser: Browser, kit: Path, page: Path) -> None:
    orders = []
    for rater in ("A", "B"):
        tab = browser.tab(page)
        begin(tab, rater)
        orders.append(state(tab)["order"])
        for _ in range(N):
            for key in ("s", "2", "Enter"):
                tab.key(key)
        tab.wait("!document.getElementById('end').hidden")
        tab.click("#another")
        tab.close()
    assert orders[0] != orders[1]
    tab = browser.tab(page)
    assert len(tab.js("[...document.querySelectorAll('#earlier-list button')].map(b => b.textContent)")) == 2
    tab.write("#rater", "a")
    tab.js("expertise.value = 'low'")
    tab.click("#unseen")
    tab.click("#form button")
    assert "has finished on this device" in tab.js("document.getElementById('form-error').textContent")
    assert tab.js("document.getElementById('scan').hidden")


def test_another_rater_may_step_in_and_the_first_comes_back(browser: Browser, page: Path) -> None:
    tab = browser.tab(page)
    begin(tab, "A")
    answer(tab, "real", 1)
    tab.go(page.as_uri())
    tab.click("#not-me")
    begin(tab, "B")
    assert title(tab) == f"Scan 1 of {N}"
    tab.go(page.as_uri())
    tab.click("#not-me")
    begin(tab, "A")
    assert title(tab) == f"Scan 2 of {N}"
    assert len(state(tab)["answers"]) == 1


def test_there_is_no_way_back(browser: Browser, page: Path) -> None:
    """Not by going back, not by an old tab: a confirmed answer stays."""
    first = browser.tab(page)
    begin(first, "A")
    second = browser.tab(page)
    second.click("#go-on")
    answer(first, "real", 5)
    second.key("s")
    second.key("1")
    second.wait("!document.getElementById('clash').hidden")
    second.key("Enter")
    assert [one["answer"] for one in state(first)["answers"]] == ["real"]
    second.js("window.old = true")
    second.click("#reload")
    second.wait("!window.old && document.readyState === 'complete'")
    second.wait("!document.getElementById('resume').hidden")
    second.click("#go-on")
    assert title(second) == f"Scan 2 of {N}"
    # The same where the browser tells a tab nothing of the others.
    third = browser.tab(page)
    deaf = "addEventListener('storage', e => e.stopImmediatePropagation(), true)"
    third.call("Page.addScriptToEvaluateOnNewDocument", source=deaf)
    third.go(page.as_uri())
    third.click("#go-on")
    answer(first, "real", 5)
    assert third.js("document.getElementById('clash').hidden")
    for key in ("s", "1", "Enter"):
        third.key(key)
    assert not third.js("document.getElementById('clash').hidden")
    assert [one["answer"] for one in state(first)["answers"]] == ["real", "real"]
    for tab in (first, second, third):
        tab.close()


def test_an_answer_needs_both_parts(browser: Browser, page: Path) -> None:
    tab = browser.tab(page)
    begin(tab, "A")
    tab.key("Enter")
    assert (
        tab.js("document.getElementById('missing').textContent") == "Please choose real or synthetic first."
    )
    tab.key("r")
    tab.click("#next")
    assert "how sure you are" in tab.js("document.getElementById('missing').textContent")
    assert tab.js("document.activeElement.name") == "confidence"
    assert state(tab)["answers"] == []
    tab.key("5")
    tab.key("Enter")
    tab.wait(f"document.getElementById('scan-title').textContent === 'Scan 2 of {N}'")
    one = state(tab)["answers"][0]
    assert (one["answer"], one["confidence"]) == ("real", 5)
    assert one["milliseconds"] > 0


def slice_of(tab: Tab) -> int:
    return int(tab.js("document.getElementById('slice').value"))


def test_scroll_window_and_zoom_by_mouse(browser: Browser, page: Path) -> None:
    tab = browser.tab(page)
    begin(tab, "A")
    middle, plain = slice_of(tab), shown(tab)
    tab.wheel("#canvas", -2)
    tab.wait(f"+document.getElementById('slice').value === {middle + 2}")
    assert shown(tab) != plain
    tab.wheel("#canvas", 2)
    tab.wait(f"+document.getElementById('slice').value === {middle}")
    assert shown(tab) == plain
    x, y = tab.place("#canvas")
    tab.drag(x, y, x, y - 100, "right")
    assert sum(shown(tab)) > 1.1 * sum(plain)
    tab.drag(x, y, x, y + 250, "right")
    assert sum(shown(tab)) < 0.9 * sum(plain)
    tab.click("#plain")
    assert shown(tab) == plain
    tab.drag(x, y, x, y - 200)
    assert slice_of(tab) > middle
    tab.drag(x, y, x, y + 200)
    assert slice_of(tab) == middle
    tab.wheel("#canvas", -3, ctrl=True)
    tab.wait("document.getElementById('zoom-value').textContent !== '100 %'")
    zoomed = shown(tab)
    assert zoomed != plain
    tab.click("label:has(input[value=move])")
    tab.drag(x, y, x + 150, y)
    assert shown(tab) not in (plain, zoomed)
    for _ in range(30):
        tab.click("#zoom-out")
    assert shown(tab) == plain


def test_scroll_window_and_zoom_by_keyboard(browser: Browser, page: Path) -> None:
    tab = browser.tab(page)
    begin(tab, "A")
    middle, plain = slice_of(tab), shown(tab)
    for key, change in (("ArrowUp", 1), ("ArrowDown", -1), ("End", 8 - middle), ("Home", -middle)):
        tab.key("0")
        tab.js(f"document.getElementById('slice').value={middle};slice.dispatchEvent(new Event('input'))")
        tab.key(key)
        assert slice_of(tab) == middle + change, key
    tab.js(f"document.getElementById('slice').value={middle};slice.dispatchEvent(new Event('input'))")
    for key, back in (("w", "x"), ("d", "a"), ("+", "-")):
        tab.key(key)
        assert shown(tab) != plain, key
        tab.key(back)
        assert shown(tab) == plain, key
    tab.key("+")
    tab.key("+")
    zoomed = shown(tab)
    tab.key("ArrowLeft", shift=True)
    assert shown(tab) not in (zoomed, plain)
    tab.key("0")
    assert shown(tab) == plain
    tab.click("summary")
    tab.click("#letters")  # for those who dictate: single letters do nothing
    tab.key("w")
    tab.key("r")
    assert shown(tab) == plain
    assert tab.js("document.querySelector('input[name=answer]:checked')") is None


def test_the_keyboard_alone_is_enough(browser: Browser, page: Path) -> None:
    """From start to answer with Tab, arrows, space and Enter; the focus is always seen."""
    tab = browser.tab(page)
    tab.key("Tab")
    assert tab.js("document.activeElement.id") == "rater"
    tab.call("Input.insertText", text="K")
    tab.key("Tab")
    tab.key("ArrowDown")
    tab.key("Tab")
    tab.key("Tab")
    tab.key(" ")
    tab.key("Tab")
    tab.key("Enter")
    tab.wait("!document.getElementById('scan').hidden")
    assert state(tab)["expertise"] == "none"
    seen = []
    for _ in range(12):
        tab.key("Tab")
        seen.append(tab.js("document.activeElement.id || document.activeElement.name"))
        ring = "(e => [e, e.nextElementSibling].some(o => o && getComputedStyle(o).outlineStyle === 'solid'))"
        assert tab.js(f"{ring}(document.activeElement)"), seen[-1]
        if seen[-1] in ("answer", "confidence"):
            tab.key(" ")
    assert seen[:5] == ["canvas", "slice", "answer", "confidence", "next"]
    assert {"brightness", "contrast", "zoom-in", "plain", "drag"} <= set(seen)
    tab.key("Enter")
    tab.js("document.getElementById('next').focus()")
    tab.key("Enter")
    tab.wait(f"document.getElementById('scan-title').textContent === 'Scan 2 of {N}'")
    assert tab.js("document.activeElement.id") == "scan-title"
    assert tab.js("document.getElementById('said').textContent") == f"Scan 2 of {N}"


@pytest.mark.parametrize("width", [390, 820])
def test_fingers_on_a_phone_and_a_tablet(browser: Browser, page: Path, width: int) -> None:
    tab = browser.tab(page, width, 844 if width == 390 else 1180, touch=True)
    for view in ("start", "scan", "end"):
        if view == "scan":
            begin(tab, "T")
            x, y = tab.place("#canvas")
            middle = slice_of(tab)
            tab.touch("touchStart", (x, y))
            tab.touch("touchMove", (x, y - 80))
            tab.touch("touchEnd")
            tab.wait(f"+document.getElementById('slice').value > {middle}")
            tab.touch("touchStart", (x - 20, y), (x + 20, y))
            tab.touch("touchMove", (x - 60, y), (x + 60, y))
            tab.touch("touchEnd")
            tab.wait("parseInt(document.getElementById('zoom-value').textContent) > 200")
            below = tab.js("document.getElementById('next').getBoundingClientRect().bottom - innerHeight")
            assert below <= 0  # an answer needs no scrolling of the page
        if view == "end":
            for _ in range(N):
                answer_by_touch(tab)
            tab.wait("!document.getElementById('end').hidden")
        assert tab.js("document.documentElement.scrollWidth <= innerWidth")
        small = tab.js(
            "[...document.querySelectorAll('button,select,input:not([type=range]),summary')]"
            ".filter(e => e.offsetParent).map(e => [e.id || e.value, e.getBoundingClientRect()])"
            ".filter(([n, b]) => b.width < 20 || b.height < 20).map(([n]) => n)"
        )
        assert small == []
    assert tab.js("wrong") == []


def answer_by_touch(tab: Tab) -> None:
    for selector in ("label:has(input[value=real])", "label:has(input[name=confidence][value='3'])", "#next"):
        place = tab.place(selector)
        tab.touch("touchStart", place)
        tab.touch("touchEnd")


def test_everything_has_a_name_and_enough_contrast(browser: Browser, page: Path) -> None:
    tab = browser.tab(page)
    tab.call("Accessibility.enable")
    wanted = {"textbox", "combobox", "checkbox", "spinbutton", "button", "slider", "radio", "image"}
    for view in ("start", "scan"):
        if view == "scan":
            begin(tab, "A")
            tab.click("summary")
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        roles = [(n["role"]["value"], n.get("name", {}).get("value")) for n in nodes if not n["ignored"]]
        named = [(role, name) for role, name in roles if role in wanted or role == "progressbar"]
        assert len(named) > 4
        assert all(name for _, name in named), named
        assert tab.js(CONTRAST) == []
    live = [
        (n["role"]["value"], n.get("properties")) for n in nodes if n.get("role", {}).get("value") == "status"
    ]
    assert live


# Every visible text with a ratio below 4.5 (3 where it is large): WCAG 2.1, 1.4.3.
CONTRAST = """(() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = parse(c).map(v => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05; };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if ((parse(c)[3] ?? 1) > 0) return c; } return "rgb(255,255,255)"; };
  const found = [], walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data.trim(), e = walk.currentNode.parentElement;
    if (!text || !e.offsetParent || e.closest(".unseen")) continue;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const a = light(style.color), b = light(behind(e));
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (Math.max(a, b) / Math.min(a, b) < (large ? 3 : 4.5)) found.push([text, a / b]);
  }
  return found;
})()"""


def test_without_storage_the_page_warns_and_still_works(
    browser: Browser, kit: Path, page: Path, tmp_path: Path
) -> None:
    tab = browser.tab(page)
    broken = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('denied') }})"
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=broken)
    tab.go(page.as_uri())
    assert not tab.js("document.getElementById('unsaved').hidden")
    begin(tab, "P")
    for _ in range(N):
        for key in ("r", "3", "Enter"):
            tab.key(key)
    tab.wait("!document.getElementById('end').hidden")
    file = fetch(tab, browser, tmp_path)
    assert main(["score", str(kit), str(file), "--out", str(tmp_path / "scores")]) == 0
    assert read_tsv(tmp_path / "scores" / "table3.tsv")[0]["right"] == "6"


def test_answers_so_far_are_known_for_incomplete(
    browser: Browser, kit: Path, page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tab = browser.tab(page)
    begin(tab, "S")
    answer(tab, "real", 2)
    tab.click("summary")
    file = fetch(tab, browser, tmp_path, "#download-so-far")
    assert json.loads(file.read_text())["complete"] is False
    assert main(["score", str(kit), str(file), "--out", str(tmp_path / "scores")]) == 2
    assert "is incomplete: rater S answered 1 of 14 scans" in capsys.readouterr().err
