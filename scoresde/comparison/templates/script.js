"use strict";
(() => {
  const make = (tag, text, properties) => {
    const element = document.createElement(tag);
    element.textContent = text;
    return Object.assign(element, properties);
  };

  for (const code of document.querySelectorAll("code.copy")) {
    const button = make("button", "copy", { type: "button" });
    button.setAttribute("aria-label", "Copy the settings: " + code.textContent);
    button.onclick = async () => {
      getSelection().selectAllChildren(code);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "copied";
      } catch {
        button.textContent = "selected";
      }
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    };
    code.after(" ", button);
  }

  const value = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? parseFloat(cell.dataset.value) : cell.textContent.trim();
  };

  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") {
      if (Number.isNaN(a) || Number.isNaN(b)) return 0;
      return a - b;
    }
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };

  const sort = (table, column, header) => {
    const descending = header.getAttribute("aria-sort") === "ascending";
    const unknown = (v) => v === "—" || Number.isNaN(v);
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      if (unknown(x) || unknown(y)) return unknown(x) - unknown(y);
      return descending ? compare(y, x) : compare(x, y);
    });
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    table.tBodies[0].append(...rows);
  };

  const filter = (table) => {
    const search = make("input", "", { type: "search", placeholder: "for example: ddim" });
    const budget = make("select", "");
    const count = make("span", "");
    count.setAttribute("role", "status");
    const rows = [...table.tBodies[0].rows];
    const budgets = new Set(rows.map((row) => row.cells[0].textContent.trim()));
    budget.append(make("option", "all", { value: "" }));
    for (const text of budgets) budget.append(make("option", text, { value: text }));
    const show = () => {
      let shown = 0;
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const fits = words.every((word) => text.includes(word));
        row.hidden = !fits || (budget.value && row.cells[0].textContent.trim() !== budget.value);
        shown += !row.hidden;
      }
      count.textContent = shown + " of " + rows.length + " rows";
    };
    search.oninput = budget.onchange = show;
    const bar = make("div", "", { className: "bar" });
    const labels = [make("label", "Show rows with "), make("label", "NFE ≤ ")];
    labels[0].append(search);
    labels[1].append(budget);
    bar.append(...labels, count);
    table.parentElement.before(bar);
    show();
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = make("button", header.textContent.trim(), { type: "button" });
      button.onclick = () => sort(table, column, header);
      header.replaceChildren(button);
    });
    filter(table);
  }
})();
