"use strict";
function sortBy(head) {
  const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
  const before = head.getAttribute("aria-sort"), isText = head.classList.contains("text");
  const descending = before ? before === "ascending" : !isText && column > 0;
  const key = row => row.cells[column].dataset.v ?? row.cells[column].textContent;
  const compare = isText
    ? (a, b) => key(a).localeCompare(key(b), undefined, {numeric: true})
    : (a, b) => Number(key(a)) - Number(key(b));
  const known = row => isText || key(row) !== "";
  const rows = Array.from(body.rows);
  const sorted = rows.filter(known).sort((a, b) => (descending ? -1 : 1) * compare(a, b));
  body.append(...sorted, ...rows.filter(row => !known(row)));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
}
function filterBy(form) {
  const [words, verdict] = form.querySelectorAll("input, select"), count = form.querySelector("output");
  const table = form.nextElementSibling.querySelector("table"), rows = Array.from(table.tBodies[0].rows);
  const text = row => Array.from(row.querySelectorAll(".text"), cell => cell.textContent);
  const seek = words.value.toLowerCase().split(/\s+/);
  for (const row of rows) {
    const cells = text(row), all = cells.join(" ").toLowerCase();
    const fits = !verdict.value || cells.includes(verdict.value);
    row.hidden = !(fits && seek.every(word => all.includes(word)));
  }
  count.textContent = rows.filter(row => !row.hidden).length + " of " + rows.length;
}
for (const form of document.querySelectorAll(".filter")) {
  form.hidden = false;
  form.addEventListener("input", () => filterBy(form));
}
for (const button of document.querySelectorAll("thead button"))
  button.addEventListener("click", () => sortBy(button.closest("th")));
