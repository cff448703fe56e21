"""The HTML report's style sheet: light and dark, desk and phone."""

STYLE = """\
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --ink: #1d2327; --soft: #626c73; --line: #dfdcd6; --card: #ffffff;
  --accent: #0f6f78; --decode: #8aa9c4; --queue: #d9d5cc; --restore: #0f8a8f; --encode: #d59a3f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181b; --ink: #e8e6e1; --soft: #9aa3a9; --line: #30373c; --card: #1b2125;
    --accent: #57c4c9; --decode: #6d8fae; --queue: #434a50; --restore: #2fa5a9; --encode: #cf9340;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 4px; }
h2 { font-size: 1.15rem; margin: 40px 0 10px; }
h3 { font-size: 0.9rem; font-weight: 600; margin: 0 0 6px; }
.sub { color: var(--soft); margin: 0 0 24px; overflow-wrap: anywhere; }
.note { color: var(--soft); font-size: 0.86rem; max-width: 70ch; margin: 8px 0 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.figures div, .charts > div {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px;
}
.figures b {
  font-size: 1.5rem; font-weight: 650; letter-spacing: -0.02em; white-space: nowrap;
  font-variant-numeric: tabular-nums; color: var(--accent);
}
.figures .unit { color: var(--soft); font-size: 0.85rem; margin-left: 5px; }
.figures i { display: block; font-style: normal; color: var(--soft); font-size: 0.86rem; }
figure { margin: 24px 0 0; }
img { width: 100%; height: auto; border-radius: 8px; display: block; }
figcaption { color: var(--soft); font-size: 0.86rem; margin-top: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
table.numbers { width: 100%; }
th, td { padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); text-align: left; }
.numbers th, .numbers td { text-align: right; }
.numbers th:first-child, .numbers td:first-child { text-align: left; }
th { font-size: 0.82rem; font-weight: 600; color: var(--soft); }
.facts td:first-child { color: var(--soft); white-space: nowrap; padding-right: 28px; }
.facts td:last-child { overflow-wrap: anywhere; }
.charts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr));
  gap: 12px; margin-top: 20px;
}
svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg .value { text-anchor: end; }
svg .tick, svg text.mark { text-anchor: middle; }
svg .grid { stroke: var(--line); }
svg line.mark { stroke: var(--encode); stroke-dasharray: 3 3; }
svg text.mark { fill: var(--ink); }
svg .bar { fill: var(--restore); }
svg .decode { fill: var(--decode); } svg .queue { fill: var(--queue); }
svg .restore { fill: var(--restore); } svg .encode { fill: var(--encode); }
svg .roof { fill: none; stroke: var(--encode); stroke-width: 1.5; }
.wide { width: min(calc(100vw - 40px), 1480px); margin-left: 50%; transform: translateX(-50%); }
.dense td, .dense th { font-size: 0.82rem; line-height: 1.3; padding-right: 10px; }
.dense th { vertical-align: bottom; }
.dense td { white-space: nowrap; }
.claims td, .claims th { text-align: left !important; }
.claims td:nth-child(-n+3), .claims td:last-child { white-space: normal; }
.claims td:last-child { min-width: 26ch; }
.legend { font-weight: 400; color: var(--soft); font-size: 0.82rem; margin-left: 8px; }
.legend span { margin-right: 10px; white-space: nowrap; }
.legend i {
  display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 4px;
}
i.decode { background: var(--decode); } i.queue { background: var(--queue); }
i.restore { background: var(--restore); } i.encode { background: var(--encode); }
"""
