//! Tokens to text as they come: a character may be spread over several tokens.

use super::Tokenizer;

/// Holds back the bytes of a character until it is complete.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// The text that `token` completes. Bytes that can never become a character are replaced by U+FFFD.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> String {
        self.push_bytes(tokenizer.bytes(token))
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest: &[u8] = &self.pending;
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(wrong) = error.error_len() else {
                        rest = after;
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[wrong..];
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }

    /// The bytes that are held back.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// What is left at the end: nothing, or the mark of a character that was never completed.
    pub fn flush(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Decoder;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn chunks_leave_no_trace(bytes in prop::collection::vec(any::<u8>(), 0..40), text in "\\PC{0,20}", cut in 1_usize..5) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let mut decoder = Decoder::default();
                let mut out: String = bytes.chunks(cut).map(|chunk| decoder.push_bytes(chunk)).collect();
                out.push_str(&decoder.flush());
                prop_assert_eq!(&out, &*String::from_utf8_lossy(bytes));
            }
        }
    }
}
