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
const look = (frame) => {
  const page = frame.contentDocument, root = page.documentElement;
  const table = page.querySelector("table.sortable");
  const column = [...table.tHead.rows[0].cells].findIndex((h) => h.textContent.startsWith("MMD"));
  const shown = () => [...table.tBodies[0].rows].filter((row) => row.checkVisibility());
  const values = () => shown().map((row) => row.cells[column].dataset.value);
  const press = () => table.tHead.rows[0].cells[column].querySelector("button").click();
  const result = { wide: root.scrollWidth, inner: root.clientWidth, before: values() };
  press(); result.up = values();
  press(); result.down = values();
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
        assert one["text"] == one["ink"]  # the texts of drawings follow the scheme
        lightness = [sum(map(int, re.findall(r"\d+", one[key])[:3])) for key in ("paper", "ink")]
        assert (lightness[0] < lightness[1]) is dark
