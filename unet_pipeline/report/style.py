"""How the page looks: light, with the fonts of the reader's system, on any window and on paper."""

STYLE = """
:root { --ink: #1b2430; --soft: #5a6675; --line: #dde3ea; --wash: #f6f8fa; --mark: #0b5394; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 1rem; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer { max-width: 70rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
footer { padding-top: 1rem; padding-bottom: 3rem; color: var(--soft); font-size: .875rem; }
h1 { font-size: 1.9rem; line-height: 1.2; font-weight: 650; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 3rem 0 .75rem; padding-top: 1.25rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.1rem; margin: 2.25rem 0 .4rem; overflow-wrap: anywhere; }
h4 { font-size: .95rem; margin: 1.75rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--mark); text-underline-offset: .15em; }
.lead { font-size: 1.05rem; color: var(--soft); }
.note { border-left: 3px solid #d55e00; padding: .1rem 0 .1rem .75rem; }
.good { border-left: 3px solid #009e73; padding: .1rem 0 .1rem .75rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: 1.25rem 0 0; font-size: .9rem; }

.cards { display: grid; gap: .9rem; margin: 1.5rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr)); }
.card { background: var(--wash); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; }
.card p { margin: 0; overflow-wrap: anywhere; }
.card .what { font-size: .85rem; color: var(--soft); }
.card .big { font-size: 2.1rem; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }

figure { margin: 0; }
figcaption { font-size: .85rem; line-height: 1.45; color: var(--soft); margin-top: .45rem; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; }
img { display: block; max-width: 100%; height: auto; }
svg { display: block; width: 100%; height: auto; }
.panels, .curves, .plans { display: grid; gap: 1.5rem 1.25rem; margin: 1rem 0; }
.panels { grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); }
.curves { grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.plans { grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 30rem)); gap: 2rem; align-items: start; }
.panels img, .curves img { width: 100%; }
.panels img { border: 1px solid var(--line); }
.pair { display: flex; flex-wrap: wrap; gap: 0 4rem; }
.keys { display: inline-flex; flex-wrap: wrap; gap: .1rem .9rem; margin-right: .6em; }
.key { display: inline-flex; align-items: baseline; gap: .4em; white-space: nowrap; }
.key i { display: inline-block; width: .85em; height: .85em; border: 1px solid #0003; border-radius: 2px; flex: none; }
.key i.ramp { width: 7em; }
.flow .tall { display: none; }
.flow svg text { font-family: inherit; }

.scroll { overflow-x: auto; margin: 1rem 0; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0 0 .4rem; white-space: nowrap; }
th, td { padding: .32rem .8rem .32rem 0; text-align: left; vertical-align: baseline; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; border-bottom-color: #b8c2cd; }
tbody th { font-weight: 500; }
.share { display: block; padding: .1rem .45rem; border-radius: .2rem; }
.share small { color: var(--ink); font-size: .78rem; }
th.n, td.n { text-align: right; padding-left: .8rem; }
.facts tbody th { color: var(--soft); font-weight: 400; padding-right: 1.5rem; }
.facts td { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
dl { font-size: .875rem; color: var(--soft); display: grid; gap: .5rem 2rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
dt { color: var(--ink); font-weight: 600; }
dd { margin: 0; }
details { margin: .75rem 0; font-size: .9rem; }
summary { cursor: pointer; color: var(--mark); }

@media (max-width: 56rem) {
  .flow .wide { display: none; }
  .flow .tall { display: block; max-width: 22rem; margin: 0 auto; }
}
@media (max-width: 30rem) {
  main, header, footer { padding-left: 1rem; padding-right: 1rem; }
  header { padding-top: 1.5rem; }
  h1 { font-size: 1.55rem; }
  h2 { margin-top: 2rem; }
}
@media print {
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  body { font-size: 10pt; }
  main, header, footer { max-width: none; padding: 0; }
  nav { display: none; }
  h2, h3, h4 { break-after: avoid; }
  figure, tr, .card { break-inside: avoid; }
  .panels, .curves { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .plans { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .flow .wide { display: block; }
  .flow .tall { display: none; }
  .scroll { overflow: visible; }
  th, td { white-space: normal; }
}
"""
