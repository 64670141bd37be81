"""How the page looks, light and dark."""

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --panel: #f4f6f8; --ink: #1f2933; --soft: #586675; --line: #d5dbe1;
  --spiking: #0b6e99; --twin: #a3adb8; --quantised: #b9770e; --alert: #b93145; --good: #17704b; --low: #ffffff; --high: #0b3c56; }
@media (prefers-color-scheme: dark) { :root { --ground: #11161b; --panel: #1a2128; --ink: #e4e9ee; --soft: #9fabb8; --line: #323e49;
  --spiking: #4db4dd; --twin: #6f7c89; --quantised: #dfa63a; --alert: #f27b88; --good: #5cc698; --low: #11161b; --high: #c4e9fa; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { overflow-wrap: anywhere; font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 1.5rem 0 .4rem; }
p { margin: .4rem 0; max-width: 78ch; }
.soft, caption, figcaption { color: var(--soft); font-size: .86rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: .75rem; margin: 1.25rem 0 0; }
.tile { background: var(--panel); border-radius: 8px; padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.3; font-weight: 600; }
.tile span { color: var(--soft); font-size: .84rem; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: left; padding: .28rem .7rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.whole { white-space: nowrap; }
td.code { font: .8rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; min-width: 12rem; }
.bars { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .18rem .8rem; align-items: center; margin: .6rem 0; }
.bars > span { font-size: .84rem; overflow-wrap: anywhere; }
.bars.fine > span { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .74rem; line-height: 1.25; }
.bar { display: flex; align-items: center; gap: .45rem; min-width: 0; padding-right: 6.5rem; }
.bar i { display: block; flex: none; height: 15px; border-radius: 0 3px 3px 0; background: var(--spiking); min-width: 1px; }
.fine .bar i { height: 9px; }
.bar b { font-size: .8rem; font-weight: 500; white-space: nowrap; margin-right: -6.5rem; font-variant-numeric: tabular-nums; }
.bar i.twin, .key i.twin { background: var(--twin); } .bar i.quantised, .key i.quantised { background: var(--quantised); }
.bar i.mac, .key i.mac { background: var(--alert); }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; font-size: .84rem; color: var(--soft); margin: .4rem 0; }
.key i { display: inline-block; width: 12px; height: 12px; border-radius: 2px; background: var(--spiking); margin-right: .4rem; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 0 2rem; }
.yes { color: var(--good); font-weight: 600; } .no { color: var(--alert); font-weight: 600; }
ul { padding-left: 1.2rem; margin: .4rem 0; } li { margin: .15rem 0; max-width: 78ch; }
details { margin: .5rem 0; } summary { cursor: pointer; padding: .2rem 0; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem .8rem; align-items: center; margin: .75rem 0 .5rem; }
select, button { font: inherit; font-size: .88rem; color: var(--ink); background: var(--panel); border: 1px solid var(--line);
  border-radius: 6px; padding: .25rem .6rem; max-width: 100%; }
label { font-size: .88rem; color: var(--soft); display: inline-flex; gap: .45rem; align-items: center; }
:focus-visible { outline: 2px solid var(--spiking); outline-offset: 2px; }
.scroll { position: relative; overflow: auto; max-height: 620px; border: 1px solid var(--line); border-radius: 8px; }
.sheet { position: relative; background: var(--low); }
.sheet canvas { display: block; width: 100%; image-rendering: pixelated; }
.top, .bottom { position: sticky; z-index: 1; background: var(--low); }
.top { top: 0; border-bottom: 1px solid var(--line); } .bottom { bottom: 0; border-top: 1px solid var(--line); }
#cross { position: absolute; top: 0; bottom: 0; width: 1px; background: var(--alert); z-index: 2; pointer-events: none; display: none; }
#said { min-height: 1.5em; font-variant-numeric: tabular-nums; }
svg text { fill: var(--ink); font-size: 12px; } svg .soft { fill: var(--soft); } svg line { stroke: var(--line); }
svg circle { fill: var(--spiking); } svg circle.other { fill: var(--twin); }
@media print { .scroll { max-height: none; } details { display: block; } }
"""
