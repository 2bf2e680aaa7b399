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
  const tables = Array.from(form.parentElement.querySelectorAll("table"));
  const seek = words.value.toLowerCase().split(/\s+/), shown = new Set();
  const number = row => row.cells[0].textContent;
  const rows = Array.from(tables[0].tBodies[0].rows);
  for (const row of rows) {
    const all = Array.from(row.querySelectorAll(".text"), cell => cell.textContent).join(" ").toLowerCase();
    const fits = !verdict.value || row.dataset.verdict === verdict.value;
    if (fits && seek.every(word => all.includes(word))) shown.add(number(row));
  }
  for (const table of tables)
    for (const row of table.tBodies[0].rows) row.hidden = !shown.has(number(row));
  count.textContent = shown.size + " of " + rows.length;
}
function saveDrawing(drawing) {
  const copy = drawing.cloneNode(true), [, , width, height] = drawing.getAttribute("viewBox").split(" ");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const text = new XMLSerializer().serializeToString(copy), link = document.createElement("a");
  link.href = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  const name = document.title + " " + drawing.getAttribute("aria-label");
  link.download = name.replace(/[^\p{L}\p{N}]+/gu, "_").slice(0, 100) + ".svg";
  link.click();
}
for (const form of document.querySelectorAll(".filter")) {
  form.hidden = false;
  form.addEventListener("input", () => filterBy(form));
}
for (const drawing of document.querySelectorAll("figure > .wide > svg, figure > svg")) {
  const button = document.createElement("button"), figure = drawing.closest("figure");
  button.type = "button";
  button.className = "save";
  button.textContent = "SVG";
  button.title = "Save as an SVG file: " + drawing.getAttribute("aria-label");
  button.addEventListener("click", () => saveDrawing(drawing));
  figure.append(button);
}
for (const button of document.querySelectorAll("thead button"))
  button.addEventListener("click", () => sortBy(button.closest("th")));
