// The look of the spool's page: as the report's, for light and dark screens, in Okabe and Ito's colours.
#pragma once

namespace hesspect {

inline constexpr const char* kSpoolStyle = R"css(
:root { color-scheme: light dark; --paper: #ffffff; --card: #f5f7fa; --ink: #1b2430; --soft: #5b6775; --rule: #d9dfe6;
  --blue: #0072b2; --orange: #b84f00; --green: #00805c; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161c; --card: #1b212a; --ink: #e6eaf0; --soft: #9aa7b6;
  --rule: #323c48; --blue: #56b4e9; --orange: #e69f00; --green: #2fc29b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 1.8rem 1.2rem 3rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h1 .path { font-weight: 400; color: var(--soft); }
h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
p { margin: .3rem 0; }
.soft { color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(110px, 1fr)); gap: .7rem; margin: 1.1rem 0; }
.card { background: var(--card); border-radius: 10px; padding: .6rem .9rem; border-top: 3px solid var(--rule); }
.card b { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .88rem; }
.card.running { border-color: var(--blue); }
.card.done { border-color: var(--green); }
.card.failed { border-color: var(--orange); }
.wide { overflow-x: auto; }
sup { line-height: 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; color: var(--soft); font-weight: 600; white-space: nowrap; }
th, td { padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.job { min-width: 10rem; overflow-wrap: anywhere; }
td.job b { font-weight: 600; }
td .soft { display: block; font-size: .82rem; overflow-wrap: anywhere; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.line { min-width: 14rem; overflow-wrap: anywhere; }
.state { white-space: nowrap; font-weight: 600; }
.state.done { color: var(--green); }
.state.failed { color: var(--orange); }
.state.cancelled { color: var(--soft); }
@media print { .card { border: 1px solid var(--rule); } }
)css";

}  // namespace hesspect
