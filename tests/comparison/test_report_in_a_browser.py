"""report.html in a browser: its width, its script, its colours, and no errors."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from . import test_report

folder = test_report.folder  # fixtures
page = test_report.page

WIDTHS = (400, 1280)
# A page around the report, which reads it in frames of two widths.
PROBE = """<!DOCTYPE html><body><script>
const found = {};
const light = (colour) => {  // relative luminance, WCAG 2.2
  const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).slice(0, 3).map((v) => {
    v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (a, b) => {
  const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
const contrast = (view, page) => {  // the least of all texts, and of the lines of figures
  const paper = (e) => {
    for (; e; e = e.parentElement) {
      const colour = view.getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
  };
  let texts = 21, lines = 21;
  for (const e of page.body.querySelectorAll("*")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const style = view.getComputedStyle(e);
    if (own && !["SCRIPT", "STYLE"].includes(e.tagName) && e.checkVisibility())
      texts = Math.min(texts, ratio(e.closest("svg") ? style.fill : style.color, paper(e)));
    if (e.tagName === "path" && /var\\(--line/.test(e.getAttribute("style")))
      lines = Math.min(lines, ratio(style.stroke === "none" ? style.fill : style.stroke, paper(e)));
  }
  return [texts, lines];
};
const look = (frame) => {
  const page = frame.contentDocument, root = page.documentElement;
  const table = page.querySelector("table.sortable");
  const column = [...table.tHead.rows[0].cells].findIndex((h) => h.textContent.startsWith("MMD"));
  const shown = () => [...table.tBodies[0].rows].filter((row) => row.checkVisibility());
  const values = () => shown().map((row) => row.cells[column].dataset.value);
  const press = () => table.tHead.rows[0].cells[column].querySelector("button").click();
  const names = [...page.querySelectorAll("button, input, select, [role=region], [role=img]")]
    .filter((e) => !(e.getAttribute("aria-label") || e.textContent || e.labels?.length));
  const heads = [...page.querySelectorAll("th")].filter((th) => !th.scope);
  const pictures = [...page.querySelectorAll("img")].filter((img) => !img.alt);
  const result = {
    contrast: contrast(frame.contentWindow, page), unnamed: names.length + pictures.length,
    unscoped: heads.length, wide: root.scrollWidth, inner: root.clientWidth, before: values() };
  const sorted = () => table.tHead.rows[0].cells[column].getAttribute("aria-sort");
  press(); result.up = values(); result.sorted = [sorted()];
  press(); result.down = values(); result.sorted.push(sorted());
  const search = page.querySelector("input[type=search]");
  search.value = "ddim";
  search.dispatchEvent(new Event("input"));
  result.filtered = shown().map((row) => row.cells[1].textContent.trim());
  result.said = page.querySelector("[role=status]").textContent;
  const style = frame.contentWindow.getComputedStyle(page.body);
  result.paper = style.backgroundColor;
  result.ink = style.color;
  result.text = frame.contentWindow.getComputedStyle(page.querySelector("svg text")).fill;
  return result;
};
const done = WIDTHS.map((width) => new Promise((resolve) => {
  const frame = document.createElement("iframe");
  frame.width = width; frame.height = 900; frame.src = "report.html";
  frame.onload = () => { found[width] = look(frame); resolve(); };
  document.body.append(frame);
}));
Promise.all(done).then(() => { document.body.textContent = JSON.stringify(found); });
</script></body>"""


def browse(folder, tmp_path, dark):
    """What the two frames show, and the messages of the browser's console."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no browser; apt-get install chromium")
    around = folder / "probe.html"
    around.write_text(PROBE.replace("WIDTHS", str([*WIDTHS])))
    scheme = 0 if dark else 1
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--disable-web-security", "--allow-file-access-from-files"),
            *("--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"),
            *(f"--blink-settings=preferredColorScheme={scheme}", "--virtual-time-budget=10000"),
            *("--enable-logging=stderr", around.as_uri()),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    around.unlink()
    text = re.search(r"<body>(.*)</body>", done.stdout, re.DOTALL).group(1)
    return json.loads(unescape(text)), re.findall(r".*CONSOLE.*", done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_sorts_and_filters_without_errors(folder, page, tmp_path, dark):
    found, messages = browse(folder, tmp_path, dark)
    assert messages == []
    for width in WIDTHS:
        one = found[str(width)]
        assert one["wide"] <= one["inner"] <= width  # no overflow to the side
        values = [float(value) for value in one["up"]]
        assert values == sorted(values)
        assert one["down"] == one["up"][::-1]
        assert one["up"] != one["before"]
        assert {*one["filtered"]} == {"ddim"}
        assert one["said"] == f"2 of {len(one['before'])} rows"
        assert one["sorted"] == ["ascending", "descending"]
        assert one["unnamed"] == one["unscoped"] == 0
        assert one["contrast"][0] >= 4.5  # WCAG 2.2, 1.4.3: texts
        assert one["contrast"][1] >= 3.0  # 1.4.11: lines of figures
        assert one["text"] == one["ink"]  # the texts of drawings follow the scheme
        lightness = [sum(map(int, re.findall(r"\d+", one[key])[:3])) for key in ("paper", "ink")]
        assert (lightness[0] < lightness[1]) is dark
