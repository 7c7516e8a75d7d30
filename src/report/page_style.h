// The look of the report's page: for light and dark screens and for paper, in Okabe and Ito's colours, which are told
// apart by colour-blind eyes too.
#pragma once

namespace hesspect {

inline constexpr const char* kPageStyle = R"css(
:root { color-scheme: light dark; --paper: #ffffff; --card: #f5f7fa; --ink: #1b2430; --soft: #5b6775; --rule: #d9dfe6;
  --blue: #0072b2; --orange: #d55e00; --purple: #a8578a; --green: #00805c; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161c; --card: #1b212a; --ink: #e6eaf0; --soft: #9aa7b6;
  --rule: #323c48; --blue: #56b4e9; --orange: #e69f00; --purple: #cc79a7; --green: #2fc29b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .2rem; overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; }
.soft { color: var(--soft); }
.caveat { border-left: 4px solid var(--orange); background: var(--card); padding: .8rem 1.1rem; margin: 1.2rem 0; border-radius: 0 8px 8px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.card { background: var(--card); border-radius: 10px; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.45rem; overflow-wrap: anywhere; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .86rem; display: block; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 1.4rem 1.6rem; }
figure { margin: 0; }
figcaption { color: var(--soft); font-size: .88rem; }
figure b { display: block; margin-bottom: .2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: .42rem .7rem .42rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td:first-child { min-width: 15rem; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
summary { cursor: pointer; }
details p { font-size: .88rem; max-width: 44rem; }
.surface { grid-column: 1 / -1; }
.surface canvas { width: 100%; height: 460px; touch-action: none; cursor: grab; }
.surface label { margin-right: .8rem; }
.surface output { display: block; min-height: 1.6em; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font-size: 13.5px; }
svg text.tick { fill: var(--soft); font-size: 13px; }
svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .grid { stroke: var(--rule); stroke-width: .8; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .curve { stroke: var(--blue); stroke-width: 1.9; fill: none; }
svg .other { stroke: var(--orange); stroke-width: 1.9; fill: none; }
svg .band { fill: var(--blue); fill-opacity: .22; stroke: none; }
svg .body { fill: var(--blue); fill-opacity: .12; stroke: none; }
svg .point { fill: var(--blue); stroke: var(--blue); }
svg .top { fill: var(--orange); stroke: var(--orange); stroke-width: 1.4; }
svg .negative { fill: var(--purple); stroke: var(--purple); stroke-width: 1.4; }
svg .bar { stroke-width: 1.3; }
svg .valid { fill: var(--green); fill-opacity: .13; stroke: none; }
svg .sample.valid { stroke: var(--green); stroke-opacity: .3; stroke-width: 9; }
svg .zero { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 3; }
svg .edge { stroke: var(--green); stroke-width: 1.2; stroke-dasharray: 2 3; }
svg .sample.band { stroke: var(--blue); stroke-opacity: .3; stroke-width: 9; }
svg .sample { stroke-width: 3; }
svg .cell { fill: var(--blue); }
@media print { .card, .caveat { border: 1px solid var(--rule); } }
)css";

}  // namespace hesspect
