//! A comparison as one page of HTML that needs nothing else: a bar for each server, with its spread.

use std::fmt::Write as _;

use clap::ValueEnum as _;

use super::peer::Peer;
use super::report::Comparison;
use super::row::Row;

/// Width of the longest bar, of the names before it, and of what is said behind it.
const BAR: f64 = 400.0;
const NAMES: f64 = 130.0;
const FIGURES: f64 = 230.0;
/// Height of a bar with its gap.
const STEP: f64 = 26.0;

const STYLE: &str = "
:root{color-scheme:light dark;--text:#1d2430;--soft:#667085;--back:#fff;--card:#f6f7f9;--ours:#0a7d5a;--theirs:#9aa7b8;--line:#1d2430;--good:#0a7d5a;--bad:#b42318}
@media(prefers-color-scheme:dark){:root{--text:#e6e9ee;--soft:#98a2b3;--back:#12161c;--card:#1b2129;--ours:#3ccb9a;--theirs:#5d6b7e;--line:#e6e9ee;--good:#3ccb9a;--bad:#ff8f85}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:820px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.05rem;margin:0}p{color:var(--soft);margin:.1rem 0 .6rem}
section{background:var(--card);border-radius:10px;padding:1rem 1.2rem;margin:1rem 0}
svg{width:100%;height:auto;display:block}text{fill:var(--text);font-size:13px}.soft{fill:var(--soft)}
.ours{fill:var(--ours)}.theirs{fill:var(--theirs)}.spread{stroke:var(--line);stroke-width:1.5}
ul{list-style:none;padding:0;margin:.6rem 0 0}.met{color:var(--good)}.missed{color:var(--bad)}";

impl Comparison {
    /// For browsers.
    pub fn page(&self) -> String {
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>roomcast compared</title><style>{STYLE}</style>\n<h1>roomcast compared</h1>\n\
             <p>{}; each load lasted {} s. Bars are medians, lines the least and the most; less is better.</p>\n",
            escape(&self.machine),
            self.seconds
        );
        for row in Row::value_variants() {
            self.section(*row, &mut page);
        }
        page.push_str("</html>\n");
        page
    }

    fn section(&self, row: Row, page: &mut String) {
        let found: Vec<(Peer, f64, Vec<f64>)> = Peer::value_variants()
            .iter()
            .filter_map(|peer| Some((*peer, self.median(row, *peer)?, self.values(row, *peer))))
            .collect();
        let most = found
            .iter()
            .flat_map(|(_, _, values)| values)
            .copied()
            .fold(0.0, f64::max);
        if most <= 0.0 {
            return;
        }
        let ours = self.median(row, Peer::Roomcast);
        let (width, height) = (NAMES + BAR + FIGURES, STEP * found.len() as f64);
        // Writing to a string cannot fail.
        let _written = write!(
            page,
            "<section><h2>{row}</h2><p>{}</p>\n<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{row}\">",
            row.unit()
        );
        for (index, (peer, median, values)) in found.iter().enumerate() {
            let top = STEP * index as f64;
            let at = |value: f64| NAMES + BAR * value / most;
            let class = match peer {
                Peer::Roomcast | Peer::RoomcastFsync => "ours",
                _ => "theirs",
            };
            let ratio = match ours {
                Some(ours) if *peer != Peer::Roomcast => format!(" · roomcast is {:.2} of it", ours / median),
                _ => String::new(),
            };
            let (middle, base) = (top + STEP / 2.0, top + STEP / 2.0 + 4.5);
            let _written = write!(
                page,
                "\n<text x=\"0\" y=\"{base}\">{peer}</text>\
                 <rect class=\"{class}\" x=\"{NAMES}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" rx=\"3\"/>\
                 <line class=\"spread\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\
                 <text x=\"{}\" y=\"{base}\">{median:.2}<tspan class=\"soft\">{ratio}</tspan></text>",
                top + 4.0,
                at(*median) - NAMES,
                STEP - 8.0,
                at(values[0]),
                at(values[values.len() - 1]),
                NAMES + BAR + 8.0,
            );
        }
        page.push_str("\n</svg><ul>");
        for judged in self.judged(row) {
            let (class, mark) = if judged.is_met {
                ("met", "✓")
            } else {
                ("missed", "✗")
            };
            let _written = write!(page, "<li class=\"{class}\">{mark} {}</li>", escape(&judged.what));
        }
        page.push_str("</ul></section>\n");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
