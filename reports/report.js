// Sorting and filtering are conveniences: without this script the page shows everything.
(() => {
  const number = (cell) => {
    const text = cell.dataset.sort ?? cell.textContent.trim().replaceAll(",", "").replaceAll("−", "-");
    const value = parseFloat(text.replace(/^[<✗] ?/, "")); // p below 0.001, flips
    return Number.isNaN(value) ? null : value;
  };
  const compare = (a, b, down) => {
    const [x, y] = [number(a), number(b)];
    if (x !== null && y !== null) return down ? y - x : x - y;
    if (x !== null || y !== null) return x === null ? 1 : -1; // what was not measured goes last
    return a.textContent.localeCompare(b.textContent) * (down ? -1 : 1);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    if (body.rows.length < 3) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        body.append(...[...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column], down)));
      });
    });
  }
  for (const table of document.querySelectorAll("table.filterable")) {
    if (table.tBodies[0].rows.length < 6) continue;
    const label = document.createElement("label");
    label.className = "filter";
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "a word, a group, an answer";
    label.append("Show only items with ", input);
    table.parentElement.before(label);
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
  }
  // Paper has no disclosure triangles.
  const opened = [];
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not([open])")) {
      details.open = true;
      opened.push(details);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const details of opened.splice(0)) details.open = false;
  });
})();
