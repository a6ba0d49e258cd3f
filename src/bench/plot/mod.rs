//! Plots and tables of results as one self-contained HTML page: inline SVG, no scripts, nothing from a network.
//!
//! [`chart`] draws lines on two axes, [`mod@page`] says which charts and tables a set of results makes. Both only make
//! text.

pub mod chart;
pub mod page;

pub use page::page;

/// Text within HTML or SVG.
pub(in crate::bench) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            other => escaped.push(other),
        }
    }
    escaped
}
