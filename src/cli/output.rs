//! Where results go: stdout, buffered, with colours only for a person, tables and JSON.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// Buffered standard output. Flush it: what is left in a dropped buffer is lost with its error.
pub struct Output {
    inner: BufWriter<StdoutLock<'static>>,
    colour: bool,
}

impl Output {
    /// Standard output, locked for the whole command.
    pub fn stdout() -> Output {
        let stdout = io::stdout().lock();
        let colour = stdout.is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Output { inner: BufWriter::with_capacity(64 * 1024, stdout), colour }
    }

    /// True if colours may be used: for a person, at a terminal that has them, who did not forbid it.
    pub fn has_colour(&self) -> bool {
        self.colour
    }

    /// One JSON document and a newline.
    pub fn json(&mut self, value: &serde_json::Value) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.inner, value)?;
        self.inner.write_all(b"\n")
    }

    /// `text` for people: bold on a terminal.
    pub fn heading(&mut self, text: &str) -> io::Result<()> {
        if self.colour { writeln!(self.inner, "\x1b[1m{text}\x1b[0m") } else { writeln!(self.inner, "{text}") }
    }

    /// A table with its columns aligned; numbers to the right.
    pub fn table(&mut self, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let widths: Vec<usize> = (0..header.len())
            .map(|column| {
                let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
                cells.chain([header[column].chars().count()]).max().unwrap_or(0)
            })
            .collect();
        let right: Vec<bool> = (0..header.len())
            .map(|column| {
                !rows.is_empty() && rows.iter().all(|row| row.get(column).is_some_and(|cell| is_number(cell)))
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (column, cell) in cells.enumerate() {
                let (width, pad) = (widths[column], widths[column] - cell.chars().count());
                if column > 0 {
                    text.push_str("  ");
                }
                match right[column] {
                    true => text.push_str(&format!("{cell:>width$}")),
                    false => text.push_str(&format!("{cell}{}", " ".repeat(pad))),
                }
            }
            text.trim_end().to_string()
        };
        self.heading(&line(&mut header.iter().copied()))?;
        for row in rows {
            writeln!(self.inner, "{}", line(&mut row.iter().map(String::as_str)))?;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn is_number(cell: &str) -> bool {
    cell == "-" || cell.parse::<f64>().is_ok()
}
