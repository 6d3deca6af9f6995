"use strict";
// The table of a fleet: a click on a column's head sorts by it, the choices above it filter by verdict and labels.
const table = document.getElementById("fleet");
const body = table.tBodies[0];
const rows = [...body.rows];
const filters = document.getElementById("filters");

function show() {
  const wanted = [...new FormData(filters)].filter(([, value]) => value);
  let shown = 0;
  for (const row of rows) {
    const labels = JSON.parse(row.dataset.labels);
    row.hidden = !wanted.every(([name, value]) => labels[name] === value);
    shown += !row.hidden;
  }
  document.getElementById("count").textContent = `${shown} of ${rows.length} deployments`;
}

function sort(column, down) {
  const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
  const order = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
  rows.sort((a, b) => (down ? order(b, a) : order(a, b)));
  body.append(...rows);
}

for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
  head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    sort(column, down);
  });
}
filters.addEventListener("input", show);
filters.addEventListener("reset", () => setTimeout(show));
