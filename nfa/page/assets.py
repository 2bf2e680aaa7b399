"""What every page carries: its style, its script, and the words that explain it."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --ink: #1c2126; --muted: #5b6670; --line: #dde2e7; --soft: #f5f7f9; --link: #0b62a3;
  --blue: #0072b2; --vermillion: #d55e00; --green: #009e73; --purple: #cc79a7; --orange: #e69f00;
  --sky: #56b4e9; --grey: #8a939b; --warn: #fdf1d6; --warn-line: #d98e04; --warn-ink: #6b4200;
  --heat: #4fb0e6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101418; --ink: #e4e8ec; --muted: #9aa5b0; --line: #2b333b; --soft: #181e24; --link: #7cc0f0;
    --blue: #56b4e9; --vermillion: #f0813a; --green: #2fc79b; --purple: #dd97bf; --orange: #f0b93a;
    --sky: #a3d8f7; --grey: #8d98a3; --warn: #33270c; --warn-line: #e0a32e; --warn-ink: #f7d48a;
    --heat: #14629b;
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
.unseen {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap;
}
.gallery figcaption { margin-top: 5px; font-size: 13px; }
.gallery img { image-rendering: pixelated; border-radius: 3px; }

.key { display: inline-block; width: 16px; height: 16px; vertical-align: -3px; margin-right: 7px; }
.fold { margin-top: 14px; }
details > .notes { margin-top: 8px; }
.tight table { font-size: 12.5px; }
.tight td, .tight th { padding-left: 4px; padding-right: 5px; }
.tight thead th { padding: 0; white-space: normal; vertical-align: bottom; }
.tight small { white-space: nowrap; }
.tight tbody .name, .matrix tbody .name { white-space: normal; overflow-wrap: break-word; min-width: 116px; }
.tight tbody .name { padding-left: 30px; }
.tight .key { margin-left: -23px; }
.tight button { padding: 8px 5px 8px 4px; }
.tight button::after { margin-left: 0; font-size: 9px; }
.matrix { width: fit-content; max-width: 100%; }
.matrix thead td { background: var(--soft); border-bottom: 1px solid var(--line); }
.matrix thead th {
  padding: 8px 10px; white-space: normal; overflow-wrap: break-word; min-width: 96px; max-width: 150px;
  text-align: center; vertical-align: bottom;
}
.matrix + .note { margin-top: 8px; }
.matrix td { text-align: center; padding: 7px 10px; }
.matrix td b { display: block; font-size: 16px; font-weight: 600; }
.matrix small { font-size: 11px; line-height: 1.3; white-space: nowrap; }
.matrix tbody tr > .heat, .scale i {
  background: color-mix(in srgb, var(--heat) var(--share), var(--page));
}
.scale { white-space: nowrap; }
.scale i {
  display: inline-block; width: 22px; height: 13px; vertical-align: -2px; border: solid var(--line);
  border-width: 1px 0;
}
.scale i:first-child { border-left-width: 1px; }
.scale i:last-child { border-right-width: 1px; }
.strips { display: grid; grid-template-columns: fit-content(38%) 1fr; gap: 6px 14px; align-items: center; }
.strips > * { min-width: 0; }
.strips span { font-size: 13px; overflow-wrap: anywhere; }
.strips div { display: grid; grid-template-columns: repeat(6, minmax(0, 64px)); gap: 4px; }
.strips img { image-rendering: pixelated; outline: 1px solid var(--line); }

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

REFERENCES = """<ol>
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

GUIDE = (
    """
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
<dt>verdict</dt><dd>Above null where z &gt; 2, within null where |z| ≤ 2, below null where z &lt; −2. Not
settled where two standard errors of the alignment (the ± behind it) reach across one of these borders.
Trivial: the last linear map of raw logits, whose <i>C</i> is the identity by construction; its cosine at
α = 1 is 1 whatever the weights, so it takes no part in the summary, the medians and the charts.</dd>
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
"""
    + REFERENCES
)

COMPARISON_GUIDE = (
    """
<h2 id="guide">How to read this page</h2>
<dl class="guide">
<dt>score, ±</dt><dd>Accuracy or squared error on the test samples, mean over runs and their standard
deviation. All runs of one seed were tested on the same samples.</dd>
<dt>from best</dt><dd>The score minus that of the best model, over the seeds (and folds) that both have: the
noise that a seed brings to both falls out. ± is half the 95 % confidence interval of the mean, by
Student’s t. A difference is beyond seed noise where that interval leaves out 0. Few seeds make wide
intervals; where there is one seed in common there is none.</dd>
<dt>cost</dt><dd>Seconds of fitting, without measuring. Memory is the most in use while fitting, beyond what
libraries and data took before: of the GPU where there was one, else of the process. A kernel machine stores
its training points, the centers.</dd>
<dt>epoch or round</dt><dd>A kernel machine learns by rounds: it solves, takes the AGOP of its predictor,
and makes that the distance of the next round. Its epoch 1 is round 0: the plain kernel, nothing learned.</dd>
<dt>AGOP, NFM</dt><dd>The average gradient outer product of a model with respect to its input, or to the
patches its first layer sees; and the neural feature matrix <i>W</i>ᵀ<i>W</i> of its first layer. For a
kernel machine <i>W</i>ᵀ<i>W</i> is the <i>M</i> of its distance [1, 2].</dd>
<dt>ansatz alignment, above null, cosine, null</dt>
<dd>In the table and under “Ansatz by depth”: how far the ansatz
holds in a layer, means over the layers measured. Alignment is the cosine between the traceless parts of the
sensitivity <i>C</i> and <i>WW</i>ᵀ, 0 by chance; above null is the number of layers in which it is beyond
chance, of those in which that can be told (z, its distance from chance in standard deviations, grows with
the size of a layer, so that no mean is taken of it); cosine is that of NFM and AGOP, and means nothing
without its null. The report of each run tells layer by layer. Alignment is 1
where α = ½ and fades towards α = 1: an RFM whose <i>M</i> is the AGOP itself has α = 1 when it has
converged, and then alignment says nothing against it.</dd>
<dt>similarity</dt><dd>The cosine of the feature matrices <i>A</i>, <i>B</i> of two models. Both are positive
semi-definite, so that it is positive whatever they learned. The <b>null</b> is its mean if <i>B</i> is
rotated at random, tr <i>A</i> tr <i>B</i> / <i>d</i> in units of their norms, and <b>z</b> the distance
from there in standard deviations; both are known in closed form. z tells whether, the colour how much: z
grows with the dimension <i>d</i>. Compared are runs of different seeds, where there are any: runs of one seed
are measured on the same samples, and two nets of one seed may begin with the same weights, so that they look
alike for reasons that are no features. The colour is the share of the way from
the null to the greatest cosine that two such spectra and traces allow to parallel traceless parts.</dd>
<dt>data (covariance)</dt><dd>Chance is a low bar where all models see the same data. The covariance of the
inputs is compared with them too: two models that resemble it as much as each other may owe it to the data
alone.</dd>
</dl>
"""
    + REFERENCES
)

TEXT_COLUMNS = ("layer", "kind", "verdict")
# column of the table: heading, format, explanation
NUMBER_COLUMNS = {
    "epoch": ("epoch", "g", "epochs trained when measured"),
    "in_features": ("in", "d", "length of the vectors the map acts on, per group"),
    "out_features": ("out", "d", "outputs of the map, all groups together"),
    "groups": ("groups", "d", "independent blocks of the map"),
    "power": ("power", "g", "exponent of the AGOP in cosine, pearson, offdiag and the nulls"),
    "alignment": ("alignment", "+.3f", "cosine of the traceless parts of C and WWᵀ, ± its standard error"),
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
    "alignment_stderr": ("align. error", ".2g", "standard error of the alignment"),
    "drift": ("drift", ".2g", "change of the cosine when the samples are halved"),
    "init_nfm_cosine": ("NFM vs init", ".3f", "cosine of the NFM with the one at initialisation"),
    "init_cosine": ("init cosine", ".3f", "cosine at initialisation"),
    "init_alignment": ("init alignment", "+.3f", "alignment at initialisation"),
    "stderr": ("std. error", ".2g", "standard error of the cosine"),
}
