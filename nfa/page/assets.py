"""What every page carries: its style, its script, and the words that explain it."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --ink: #1c2126; --muted: #5b6670; --line: #dde2e7; --soft: #f5f7f9; --link: #0b62a3;
  --blue: #0072b2; --vermillion: #d55e00; --green: #009e73; --purple: #cc79a7; --orange: #e69f00;
  --sky: #56b4e9; --grey: #8a939b; --warn: #fdf1d6; --warn-line: #d98e04; --warn-ink: #6b4200;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101418; --ink: #e4e8ec; --muted: #9aa5b0; --line: #2b333b; --soft: #181e24; --link: #7cc0f0;
    --blue: #56b4e9; --vermillion: #f0813a; --green: #2fc79b; --purple: #dd97bf; --orange: #f0b93a;
    --sky: #a3d8f7; --grey: #8d98a3; --warn: #33270c; --warn-line: #e0a32e; --warn-ink: #f7d48a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
main { max-width: 1128px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 14px; overflow-wrap: anywhere; }
h2 { font-size: 21px; line-height: 1.3; letter-spacing: -.01em; margin: 56px 0 6px; }
h3 { font-size: 16px; line-height: 1.4; margin: 0; overflow-wrap: anywhere; }
p { margin: 0 0 12px; max-width: 74ch; }
a { color: var(--link); text-underline-offset: 2px; }
code { font: 0.92em ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
.lede { font-size: 19px; line-height: 1.5; max-width: 68ch; }
.notes { list-style: none; margin: 0 0 16px; padding: 0; max-width: 84ch; }
.notes li { padding: 7px 14px; border-left: 4px solid var(--line); background: var(--soft); font-size: 15px; }
.notes li + li { margin-top: 6px; }
.notes .warning {
  border: 1px solid var(--warn-line); border-left-width: 6px; border-radius: 4px; background: var(--warn);
  color: var(--warn-ink); font-size: 17px; padding: 11px 14px;
}
.badge {
  display: inline-block; vertical-align: 3px; padding: 2px 10px; border-radius: 99px; font-size: 15px;
  line-height: 1.4; letter-spacing: .02em; background: var(--warn); color: var(--warn-ink);
  border: 1px solid var(--warn-line);
}
.note, figcaption { color: var(--muted); font-size: 14px; line-height: 1.5; }
svg, img { display: block; width: 100%; height: auto; }
svg { overflow: visible; }
figure { margin: 0; }
.chart { margin-top: 28px; }
.chart figcaption { margin-top: 6px; max-width: 84ch; }
.narrow { display: none; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 0 36px; }

.scroll { overflow-x: auto; margin-top: 14px; border: 1px solid var(--line); border-radius: 8px; }
.scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.long { max-height: min(80vh, 900px); overflow: auto; }
.long thead th { position: sticky; top: 0; z-index: 2; }
.long thead .name { z-index: 3; }
.filter {
  display: flex; flex-wrap: wrap; gap: 8px 12px; align-items: center; margin-top: 14px; font-size: 14px;
}
.filter[hidden], tr[hidden] { display: none; }
.filter input, .filter select {
  font: inherit; color: inherit; background: var(--page); padding: 6px 10px; min-width: 0;
  border: 1px solid var(--line); border-radius: 6px;
}
.filter input { flex: 1 1 260px; max-width: 420px; }
.filter output { color: var(--muted); font-variant-numeric: tabular-nums; }
.filter + .scroll { margin-top: 10px; }
.strip { width: 180px; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 8px; }
.parts thead th { padding: 8px 10px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: 13px; line-height: 1.35; }
th, td { padding: 6px 10px; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
thead th { background: var(--soft); border-bottom: 1px solid var(--line); padding: 0; font-weight: 600; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody th { font-weight: 500; background: var(--page); }
.text { text-align: left; }
.name { position: sticky; left: 0; z-index: 1; }
tbody .name { box-shadow: 1px 0 0 var(--line); }
thead button {
  all: unset; box-sizing: border-box; width: 100%; padding: 8px 10px; cursor: pointer; user-select: none;
}
thead button:hover { color: var(--link); }
thead button:focus-visible { outline: 2px solid var(--link); outline-offset: -2px; border-radius: 4px; }
thead button::after { content: "\\2195"; opacity: .28; margin-left: 4px; font-weight: 400; }
th[aria-sort="ascending"] button::after { content: "\\2191"; opacity: 1; }
th[aria-sort="descending"] button::after { content: "\\2193"; opacity: 1; }
tbody tr:hover > * { background: var(--soft); }
.clear { font-weight: 700; }
.chance, .skipped > *, .trivial > * { color: var(--muted); }
tbody .trivial > * { font-style: italic; }
tbody a, .index a { text-decoration-color: var(--line); }
tbody small { display: block; white-space: normal; max-width: 300px; font-size: 12px; font-weight: 400; }

.layer { margin-top: 22px; padding-top: 18px; border-top: 1px solid var(--line); }
.index a { margin-right: 10px; display: inline-block; }
.index { max-width: none; }
.layer .note { max-width: none; margin: 0 0 12px; }
.gallery {
  display: grid; grid-template-columns: repeat(12, minmax(0, 1fr)); gap: 16px 20px; align-items: start;
}
.gallery figure { grid-column: span 4; }
.gallery figcaption { margin-top: 5px; font-size: 13px; }
.gallery img { image-rendering: pixelated; border-radius: 3px; }

dl {
  display: grid; grid-template-columns: fit-content(34%) 1fr; gap: 7px 22px; margin: 14px 0 0;
  font-size: 14px;
}
dt { font-weight: 600; overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
dd dl { margin-top: 4px; grid-template-columns: fit-content(50%) 1fr; gap: 4px 18px; font-size: 13px; }
dd dt { font-weight: 500; }
summary { cursor: pointer; color: var(--link); }
.guide { gap: 12px 22px; font-size: 15px; grid-template-columns: 140px 1fr; }
.guide dd { max-width: 78ch; overflow-wrap: break-word; }
ol { padding-left: 22px; font-size: 14px; max-width: 84ch; }

@media (max-width: 640px) {
  main { padding: 24px 16px 48px; }
  h1 { font-size: 24px; }
  h2 { margin-top: 44px; }
  .lede { font-size: 17px; }
  .wide { display: none; }
  .narrow { display: block; }
  .gallery { gap: 14px 12px; }
  .gallery figure { grid-column: span 6; }
  .gallery .whole { grid-column: span 12; }
  .name { max-width: 42vw; overflow: hidden; text-overflow: ellipsis; }
  dl, .guide { grid-template-columns: 1fr; gap: 2px; }
  dd { margin-bottom: 10px; }
}
@media print {
  main { max-width: none; padding: 0; }
  figure, .layer { break-inside: avoid; }
  .scroll { overflow: visible; max-height: none; border: 0; }
  .filter { display: none; }
}
"""

# Buttons bring Enter and Space. What is undefined stays last either way; "#" restores the order of depth.
SCRIPT = """
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
  const seek = words.value.toLowerCase().split(/\\s+/);
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
"""

GUIDE = """
<h2 id="guide">How to read this page</h2>
<p>A layer applies a linear map <i>W</i> to vectors <i>p</i>: inputs, activations, or the patches of an
image. Its neural feature matrix (NFM) is <i>N</i> = <i>W</i>ᵀ<i>W</i>. Its average gradient outer product
(AGOP) is <i>G</i> = <i>W</i>ᵀ<i>CW</i>, where the sensitivity <i>C</i> is δδᵀ summed over outputs and
averaged over samples, δ the gradient of an output at <i>Wp</i>. The <b>neural feature ansatz</b> says that
training brings about <i>N</i> ∝ <i>G</i><sup>α</sup>; published choices are α = ½ and 1 [1, 2].</p>
<dl class="guide">
<dt>alignment</dt><dd>The cosine between the traceless parts of <i>C</i> and <i>WW</i>ᵀ on the range of
<i>W</i>. For a <i>W</i> of full row rank the ansatz holds exactly when <i>C</i> ∝
(<i>WW</i>ᵀ)<sup>1/α−1</sup>, and here the two sides share no factor. Chance gives 0; the ansatz with α = ½
gives 1, with α from ½ to 1 something between. At α = 1 <i>C</i> is isotropic, as at the output itself, and
alignment undefined (–). The idea is that of [3].</dd>
<dt>z</dt><dd>Alignment in units of its standard deviation for a <i>C</i> rotated at random, which is known
in closed form. |z| ≤ 2 is within chance; z &gt; 5 is far beyond it.</dd>
<dt>verdict</dt><dd>Above null where z &gt; 2, within null where |z| ≤ 2, below null where z &lt; −2. Trivial:
the last linear map of raw logits, whose <i>C</i> is the identity by construction; its cosine at α = 1 is 1
whatever the weights, so it takes no part in the summary, the medians and the charts.</dd>
<dt>α, r</dt><dd>The exponent fitted over the left singular directions <i>u</i> of <i>W</i>: the slope of
log <i>u</i>ᵀ<i>Cu</i> on log σ² is 1/α − 1, and r is the correlation of the fit. Where α is near 1 that
slope is near 0, and so is r, even where the fit is good.</dd>
<dt>cosine, null</dt><dd>The cosine of <i>N</i> with <i>G</i><sup>α</sup>, the number usually published.
<b>On its own it is no evidence</b>: both matrices contain <i>W</i>, so they resemble each other even where
<i>C</i> has nothing to do with <i>W</i>. With the identity for <i>C</i>, <i>G</i> is <i>N</i>, and at α = 1
the cosine is exactly 1 whatever the weights. Compare it with its null: the same cosine with <i>C</i>
rotated at random (band, mean ± 2 sd) and with <i>C</i> replaced by the identity (isotropic).</dd>
<dt>at initialisation</dt><dd>Rings show the same network before training, where it is known: what training
brought about is the way from the ring to the dot.</dd>
</dl>
<ol>
<li>A. Radhakrishnan, D. Beaglehole, P. Pandit, M. Belkin. Mechanism of feature learning in deep fully
connected networks and kernel machines that recursively learn features. <a
href="https://arxiv.org/abs/2212.13881">arXiv 2212.13881</a></li>
<li>D. Beaglehole, A. Radhakrishnan, P. Pandit, M. Belkin. Mechanism of feature learning in convolutional
neural networks. <a href="https://arxiv.org/abs/2309.00570">arXiv 2309.00570</a></li>
<li>D. Beaglehole, I. Mitliagkas, A. Agarwala. Feature learning as alignment: a structural property of
gradient descent in non-linear neural networks. <a href="https://arxiv.org/abs/2402.05271">arXiv
2402.05271</a></li>
</ol>
"""

TEXT_COLUMNS = ("layer", "kind", "verdict")
# column of the table: heading, format, explanation
NUMBER_COLUMNS = {
    "epoch": ("epoch", "g", "epochs trained when measured"),
    "in_features": ("in", "d", "length of the vectors the map acts on, per group"),
    "out_features": ("out", "d", "outputs of the map, all groups together"),
    "groups": ("groups", "d", "independent blocks of the map"),
    "power": ("power", "g", "exponent of the AGOP in cosine, pearson, offdiag and the nulls"),
    "alignment": ("alignment", "+.3f", "cosine of the traceless parts of C and WWᵀ"),
    "z": ("z", ".1f", "alignment over its standard deviation by chance"),
    "alpha_fit": ("α fit", ".2f", "fitted exponent of the ansatz"),
    "alpha_r": ("α r", "+.2f", "correlation of that fit"),
    "cosine": ("cosine", ".3f", "cosine of NFM and AGOP to the power"),
    "null_mean": ("null", ".3f", "mean cosine with C rotated at random"),
    "null_std": ("null sd", ".3f", "its standard deviation"),
    "null_isotropic": ("isotropic", ".3f", "cosine with C the identity"),
    "pearson": ("pearson", ".3f", "Pearson correlation of the entries"),
    "offdiag": ("off-diag", ".3f", "Pearson correlation of the off-diagonal entries"),
    "cnfc": ("C-NFC", ".3f", "cosine of ΔWᵀΔW with ΔWᵀCΔW, ΔW the change since initialisation"),
    "init_nfm_cosine": ("NFM vs init", ".3f", "cosine of the NFM with the one at initialisation"),
    "init_cosine": ("init cosine", ".3f", "cosine at initialisation"),
    "init_alignment": ("init alignment", "+.3f", "alignment at initialisation"),
    "stderr": ("std. error", ".2g", "standard error of the cosine"),
}
