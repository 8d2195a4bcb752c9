//! Takes the markup off a text: what is left is what a reader would say.
//!
//! Fenced code, rules, table rulers, link targets and tags go; headings, list items and table rows end like sentences,
//! so that they are set apart by a pause.

/// A text as characters, each with the byte after it in the source.
#[derive(Default)]
pub(super) struct Plain {
    pub(super) chars: Vec<char>,
    pub(super) ends: Vec<usize>,
}

impl Plain {
    fn push(&mut self, c: char, end: usize) {
        self.chars.push(c);
        self.ends.push(end);
    }

    /// Ends what was said before `end` with `mark`, unless it ends with punctuation already.
    fn close(&mut self, mark: char, end: usize) {
        while self.chars.last().is_some_and(|c| c.is_whitespace()) {
            self.chars.pop();
            self.ends.pop();
        }
        let said = self.chars.iter().rev().find(|c| !"*_`\"”')]~".contains(**c));
        if said.is_some_and(|c| !".!?,;:—…|".contains(*c)) {
            self.push(mark, end);
        }
        if !self.chars.is_empty() {
            self.push(' ', end);
        }
    }
}

/// Takes the markup off.
pub(super) fn plain(source: &str) -> Plain {
    let mut out = Plain::default();
    let mut fence: Option<char> = None;
    let mut at = 0;
    let mut lines = source.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let (start, end) = (at, at + line.len());
        at = end;
        let text = line.trim();
        if let Some(mark) = fence_mark(text) {
            match fence {
                None if text.trim_start_matches(mark).contains(mark) => {} // a span of code on one line
                None => {
                    fence = Some(mark);
                    continue;
                }
                Some(open) if open == mark => {
                    fence = None;
                    continue;
                }
                Some(_) => continue,
            }
        }
        if fence.is_some() || is_ruler(text) {
            continue;
        }
        if text.is_empty() {
            // A text that is only spaces between words keeps them.
            if line.ends_with('\n') {
                out.close('.', end)
            } else {
                out.push(' ', end)
            }
            continue;
        }
        let lead = start + (line.len() - line.trim_start().len());
        let block = strip_lead(text, lead, &mut out);
        let body = &text[block.skip..];
        if is_row(body) {
            cells(body, lead + block.skip, &mut out);
            out.close('.', end);
            continue;
        }
        if line.starts_with(char::is_whitespace) {
            out.push(' ', lead);
        }
        inline(body, lead + block.skip, &mut out);
        if line.ends_with('\n') {
            let goes_on = lines.peek().is_some_and(|next| next.starts_with(|c: char| c.is_lowercase()));
            if goes_on && !block.own { out.push(' ', end) } else { out.close('.', end) }
        } else if text.len() + (lead - start) < line.len() {
            out.push(' ', end);
        }
    }
    out
}

fn fence_mark(line: &str) -> Option<char> {
    ['`', '~'].into_iter().find(|&mark| line.chars().take_while(|&c| c == mark).count() >= 3)
}

/// A horizontal rule, a heading's underline, or the line under a table's head.
fn is_ruler(line: &str) -> bool {
    let marks = line.chars().filter(|c| "-=*_".contains(*c)).count();
    marks >= 3 && line.chars().all(|c| "-=*_|:+ ".contains(c))
}

fn is_row(line: &str) -> bool {
    line.len() > 1 && line.starts_with('|') && line.matches('|').count() > 1
}

struct Block {
    /// Bytes of the line that are markup.
    skip: usize,
    /// Whether the line is a block of its own, so that the next line does not go on with it.
    own: bool,
}

/// Takes off what a line begins with: quotes, headings, bullets, numbers (which are said).
fn strip_lead(line: &str, lead: usize, out: &mut Plain) -> Block {
    let mut skip = 0;
    let mut own = false;
    loop {
        let rest = &line[skip..];
        let hashes = rest.bytes().take_while(|&b| b == b'#').count();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let len = if let Some(after) = rest.strip_prefix('>') {
            Some(rest.len() - after.trim_start().len())
        } else if (1..=6).contains(&hashes) && rest[hashes..].starts_with(' ') {
            own = true;
            Some(hashes + 1)
        } else if let Some(marker) = ["- ", "* ", "+ ", "• "].into_iter().find(|m| rest.starts_with(m)) {
            // "- 5" may be a number, a bullet before it is not distinguishable; lists are far more common.
            own = true;
            Some(marker.len())
        } else if let Some(marker) = ["[ ] ", "[x] ", "[X] "].into_iter().find(|m| own && rest.starts_with(m)) {
            Some(marker.len())
        } else if (1..=3).contains(&digits) && [". ", ") "].into_iter().any(|m| rest[digits..].starts_with(m)) && !own {
            own = true;
            for (i, c) in rest[..digits].char_indices() {
                out.push(c, lead + skip + i + 1);
            }
            out.push(',', lead + skip + digits + 1);
            out.push(' ', lead + skip + digits + 2);
            Some(digits + 2)
        } else {
            None
        };
        match len {
            Some(len) => skip += len,
            None => return Block { skip, own },
        }
    }
}

fn cells(row: &str, lead: usize, out: &mut Plain) {
    let mut at = 0;
    for cell in row.split_inclusive('|') {
        let text = cell.trim_end_matches('|');
        if !text.trim().is_empty() {
            inline(text, lead + at, out);
            out.close(',', lead + at + cell.len());
        }
        at += cell.len();
    }
    // The comma after the last cell makes room for the full stop.
    while out.chars.last().is_some_and(|c| matches!(c, ',' | ' ')) {
        out.chars.pop();
        out.ends.pop();
    }
}

/// Takes links, tags, entities and escapes off a line.
fn inline(text: &str, lead: usize, out: &mut Plain) {
    let mut at = 0;
    // Numerators that wait for their denominator.
    let mut fractions = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let next = at + c.len_utf8();
        match c {
            '!' if rest[1..].starts_with('[') => at = next,
            // The target of a link, whose text has been said.
            ']' if rest.starts_with("](") || rest.starts_with("][") => {
                let close = if rest.starts_with("](") { ')' } else { ']' };
                at += rest[2..].find(close).map_or(rest.len(), |len| len + 3);
            }
            '[' if rest[1..].starts_with('^') => at += rest.find(']').map_or(1, |len| len + 1),
            '}' if fractions > 0 && rest.starts_with("}{") => {
                fractions -= 1;
                at += 2;
                for c in " over ".chars() {
                    out.push(c, lead + at);
                }
            }
            '[' | ']' | '{' | '}' => {
                out.push(' ', lead + next);
                at = next;
            }
            '<' => match tag(rest) {
                Some((len, Some(address))) => {
                    let from = at + 1;
                    for (i, c) in address.char_indices() {
                        out.push(c, lead + from + i + c.len_utf8());
                    }
                    at += len;
                }
                Some((len, None)) => {
                    out.push(' ', lead + at + len);
                    at += len;
                }
                None => {
                    out.push(c, lead + next);
                    at = next;
                }
            },
            '&' => {
                let known =
                    [("&amp;", '&'), ("&lt;", '<'), ("&gt;", '>'), ("&nbsp;", ' '), ("&quot;", '"'), ("&#39;", '\'')];
                let (len, c) =
                    known.into_iter().find(|(e, _)| rest.starts_with(e)).map_or((1, '&'), |(e, c)| (e.len(), c));
                at += len;
                out.push(c, lead + at);
            }
            '\\' => {
                let (len, word) = command(rest);
                fractions += usize::from(rest.starts_with("\\frac{"));
                at += len;
                for c in word.chars() {
                    out.push(c, lead + at);
                }
            }
            _ => {
                out.push(c, lead + next);
                at = next;
            }
        }
    }
}

/// The length of a tag such as `<br>`; of `<https://…>` the address too.
fn tag(rest: &str) -> Option<(usize, Option<&str>)> {
    let len = rest.find('>')?;
    let inside = &rest[1..len];
    if inside.contains("://") || (inside.contains('@') && !inside.contains(' ')) {
        return Some((len + 1, Some(inside)));
    }
    let name = inside.trim_start_matches('/');
    let is_tag = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && (inside.starts_with('/') || inside.contains('=') || name.trim_end_matches('/').trim().len() < 12)
        && !name.trim_end_matches('/').trim().contains(|c: char| c.is_whitespace() && !inside.contains('='));
    is_tag.then_some((len + 1, None))
}

/// A backslash and what it commands: an escape or a word of TeX.
fn command(rest: &str) -> (usize, &'static str) {
    const WORDS: &[(&str, &str)] = &[
        ("\\times", "×"),
        ("\\cdot", "×"),
        ("\\div", "÷"),
        ("\\pm", "±"),
        ("\\leq", "≤"),
        ("\\le", "≤"),
        ("\\geq", "≥"),
        ("\\ge", "≥"),
        ("\\neq", "≠"),
        ("\\approx", "≈"),
        ("\\sqrt", "√"),
        ("\\pi", "π"),
        ("\\infty", "∞"),
        ("\\%", "%"),
        ("\\$", "$"),
        ("\\&", "&"),
        ("\\#", "#"),
    ];
    if let Some((name, word)) = WORDS.iter().find(|(name, _)| rest.starts_with(name)) {
        return (name.len(), word);
    }
    // Other commands are names for the eye ("\text", "\frac"); an escaped sign is dropped with its backslash.
    let name = rest[1..].bytes().take_while(u8::is_ascii_alphabetic).count();
    if name > 0 {
        return (1 + name, " ");
    }
    let sign = rest[1..].chars().next().filter(char::is_ascii_punctuation);
    (1 + usize::from(sign.is_some_and(|c| !".,!?'-".contains(c))), "")
}
