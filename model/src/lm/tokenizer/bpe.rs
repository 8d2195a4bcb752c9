//! Joining bytes to tokens.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// The tokens of single bytes, and which pairs of tokens join to which.
pub(super) struct Bpe {
    /// Small vocabularies lack rare bytes; these are left out of the text, as in the tokenizers they come from.
    byte_tokens: Vec<u32>,
    /// Rank (lower joins first) and the token that a pair becomes.
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// Every token by its bytes, for vocabularies in which whole pieces go first.
    whole: Option<HashMap<Vec<u8>, u32>>,
}

/// Buffers reused from piece to piece.
#[derive(Default)]
pub(super) struct Scratch {
    nodes: Vec<Node>,
    /// Rank, place of the left token, its token and the right one's when this was found.
    queue: BinaryHeap<Reverse<(u32, u32, u32, u32)>>,
}

#[derive(Clone, Copy)]
struct Node {
    token: u32,
    previous: u32,
    next: u32,
}

/// No neighbour, or a node that was joined to its left one.
const NONE: u32 = u32::MAX;

/// Longest run that is joined as one. The queue holds each pair, so memory is bounded by it; longer ones are cut.
const LONGEST: usize = 1 << 16;

impl Bpe {
    /// From the texts of all tokens and of the merges. Both are in the visible alphabet of [`to_bytes`].
    pub(super) fn new(texts: &[&[u8]], merges: &[&[u8]], whole_first: bool) -> Result<Self, (&'static str, String)> {
        let ids: HashMap<&[u8], u32> = texts.iter().copied().zip(0..).collect();
        let mut byte_tokens = vec![NONE; 256];
        for byte in 0..=255_u8 {
            if let Some(&id) = ids.get(visible(byte).to_string().as_bytes()) {
                byte_tokens[usize::from(byte)] = id;
            }
        }
        let known = byte_tokens.iter().filter(|&&id| id != NONE).count();
        if known < 128 {
            return Err(("tokenizer.ggml.tokens", format!("has tokens for only {known} of 256 bytes")));
        }
        let mut table = HashMap::with_capacity(merges.len());
        let mut joined = Vec::new();
        for (rank, merge) in merges.iter().enumerate() {
            let problem = |what: &str| ("tokenizer.ggml.merges", format!("entry {rank} {what}"));
            // The blank at the start would be a token of its own; the visible alphabet has none.
            let blank = merge.iter().skip(1).position(|&b| b == b' ').ok_or_else(|| problem("is not a pair"))? + 1;
            let (left, right) = (&merge[..blank], &merge[blank + 1..]);
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            let id = |text: &[u8]| ids.get(text).copied().ok_or_else(|| problem("names a token that does not exist"));
            table.entry((id(left)?, id(right)?)).or_insert((rank as u32, id(&joined)?));
        }
        let whole = whole_first.then(|| {
            let bytes = |text: &[u8]| {
                let mut bytes = Vec::new();
                to_bytes(text, &mut bytes);
                bytes
            };
            texts.iter().zip(0..).map(|(text, id)| (bytes(text), id)).collect()
        });
        Ok(Self { byte_tokens, merges: table, whole })
    }

    /// Appends the tokens of one piece.
    pub(super) fn encode(&self, piece: &[u8], scratch: &mut Scratch, tokens: &mut Vec<u32>) {
        if let Some(&id) = self.whole.as_ref().and_then(|whole| whole.get(piece)) {
            return tokens.push(id);
        }
        for run in piece.chunks(LONGEST) {
            self.join(run, scratch, tokens);
        }
    }

    fn join(&self, run: &[u8], Scratch { nodes, queue }: &mut Scratch, tokens: &mut Vec<u32>) {
        nodes.clear();
        queue.clear();
        let known = run.iter().map(|&byte| self.byte_tokens[usize::from(byte)]).filter(|&token| token != NONE);
        for (i, token) in (0..).zip(known) {
            nodes.push(Node { token, previous: if i == 0 { NONE } else { i - 1 }, next: i + 1 });
        }
        if let Some(last) = nodes.last_mut() {
            last.next = NONE;
        }
        let propose = |nodes: &[Node], left: u32, queue: &mut BinaryHeap<_>| {
            let node = nodes[left as usize];
            if node.next != NONE {
                let right = nodes[node.next as usize].token;
                if let Some(&(rank, _)) = self.merges.get(&(node.token, right)) {
                    queue.push(Reverse((rank, left, node.token, right)));
                }
            }
        };
        for left in 0..nodes.len() as u32 {
            propose(nodes, left, queue);
        }
        while let Some(Reverse((_, left, left_token, right_token))) = queue.pop() {
            let node = nodes[left as usize];
            // One of the two may have been joined to something else meanwhile.
            if node.token != left_token || node.next == NONE || nodes[node.next as usize].token != right_token {
                continue;
            }
            let right = nodes[node.next as usize];
            let (_, joined) = self.merges[&(left_token, right_token)];
            nodes[node.next as usize].token = NONE;
            nodes[left as usize] = Node { token: joined, next: right.next, ..node };
            if right.next != NONE {
                nodes[right.next as usize].previous = left;
            }
            propose(nodes, left, queue);
            if node.previous != NONE {
                propose(nodes, node.previous, queue);
            }
        }
        tokens.extend(nodes.iter().map(|node| node.token).filter(|&token| token != NONE));
    }
}

/// The letter that stands for a byte in vocabularies: itself if it is printable, else one past U+00FF.
fn visible(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The bytes that a text in the visible alphabet stands for. What is not of that alphabet stays as it is.
pub(super) fn to_bytes(text: &[u8], bytes: &mut Vec<u8>) {
    let Ok(text) = std::str::from_utf8(text) else { return bytes.extend_from_slice(text) };
    for letter in text.chars() {
        match u32::from(letter) {
            code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => bytes.push(code as u8),
            code @ 0x100..=0x120 => bytes.push((code - 0x100) as u8),
            code @ 0x121..=0x142 => bytes.push((code - 0x121) as u8 + 0x7F),
            0x143 => bytes.push(0xAD),
            _ => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{to_bytes, visible};

    #[test]
    fn every_byte_has_a_letter_and_comes_back() {
        for byte in 0..=255 {
            let mut bytes = Vec::new();
            to_bytes(visible(byte).to_string().as_bytes(), &mut bytes);
            assert_eq!(bytes, [byte]);
        }
        assert_eq!(visible(b' '), 'Ġ');
        assert_eq!(visible(b'\n'), 'Ċ');
    }
}
