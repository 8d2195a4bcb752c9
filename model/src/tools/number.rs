//! A number being written, digit by digit, in a range.
//!
//! Nothing is begun that cannot be ended: as many digits as a double tells apart are looked ahead, in whole numbers of the
//! last of them, so that a prefix is taken only if some number that begins so is in the range.

/// Digits of one number: more are not told apart by a double.
const MAX_DIGITS: u32 = 17;

/// A number so far.
#[derive(Clone, Copy)]
pub(super) struct Number {
    at: At,
    range: Range,
    negative: bool,
    /// The digits so far as one whole number, how many they are, and how many of them are behind the point.
    written: i128,
    digits: u32,
    fraction: u32,
}

/// The numbers from `low` to `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) integer: bool,
    pub(super) low: f64,
    pub(super) high: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum At {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    Sign,
    Power,
}

impl Range {
    pub(super) const ALL: Self = Self { integer: false, low: f64::NEG_INFINITY, high: f64::INFINITY };

    /// Whether a number that can be written is in the range.
    pub(super) fn can_be_met(self) -> bool {
        b"-0123456789".iter().any(|byte| Number::begin(self, *byte).is_some())
    }

    /// Whether the range has one of the whole numbers from `least` to `most`, which count units of 10^-`places`.
    fn meets(self, least: i128, most: i128, places: u32) -> bool {
        let unit = 10f64.powi(places as i32);
        // Infinities become the ends of the type.
        let (low, high) = ((self.low * unit).ceil() as i128, (self.high * unit).floor() as i128);
        least.max(low) <= most.min(high)
    }
}

impl Number {
    /// A number that begins with this byte, if one is in the range.
    pub(super) fn begin(range: Range, byte: u8) -> Option<Self> {
        let nothing = Self { at: At::Minus, range, negative: byte == b'-', written: 0, digits: 0, fraction: 0 };
        match byte {
            b'-' => b"0123456789".iter().any(|digit| nothing.push(*digit).is_some()).then_some(nothing),
            _ => nothing.push(byte),
        }
    }

    /// The number with one more byte; `None` if that is no number, or one out of the range whatever follows.
    pub(super) fn push(self, byte: u8) -> Option<Self> {
        use At::{E, Fraction, Minus, Point, Power, Sign, Whole, Zero};
        let Range { integer, low, high } = self.range;
        let room = self.digits < MAX_DIGITS;
        let digit = i128::from(byte.wrapping_sub(b'0'));
        let longer = |at| Self { at, written: self.written * 10 + digit, digits: self.digits + 1, ..self };
        // A power of ten leads out of any range.
        let powers = !integer && low == f64::NEG_INFINITY && high == f64::INFINITY;
        let number = match (self.at, byte) {
            (Minus, b'0') => longer(Zero),
            (Minus, b'1'..=b'9') => longer(Whole),
            (Whole, b'0'..=b'9') if room => longer(Whole),
            (Zero | Whole, b'.') if !integer && room => Self { at: Point, ..self },
            (Point | Fraction, b'0'..=b'9') if room => Self { fraction: self.fraction + 1, ..longer(Fraction) },
            (Zero | Whole | Fraction, b'e' | b'E') if powers => return Some(Self { at: E, digits: 0, ..self }),
            (E, b'+' | b'-') => return Some(Self { at: Sign, ..self }),
            // Two digits of a power of ten are in the range of a double, whatever is before them.
            (E | Sign | Power, b'0'..=b'9') if self.digits < 2 => {
                return Some(Self { at: Power, digits: self.digits + 1, ..self });
            }
            _ => return None,
        };
        number.possible().then_some(number)
    }

    /// Whether it may end here.
    pub(super) fn finished(self) -> bool {
        match self.at {
            At::Zero | At::Whole | At::Fraction => {
                let places = self.places(0);
                self.meets(10i128.pow(places - self.fraction), 1, places)
            }
            At::Power => true,
            _ => false,
        }
    }

    /// Digits behind the point of the finest number that begins so and has `more` digits before the point.
    fn places(self, more: u32) -> u32 {
        if self.range.integer { 0 } else { MAX_DIGITS - (self.digits - self.fraction + more) }
    }

    /// Whether the range has one of the `count` numbers from the digits so far on, which are `scale` units of
    /// 10^-`places` each.
    fn meets(self, scale: i128, count: i128, places: u32) -> bool {
        let least = self.written * scale;
        match (self.negative, least, least + count - 1) {
            (false, least, most) => self.range.meets(least, most, places),
            (true, least, most) => self.range.meets(-most, -least, places),
        }
    }

    /// Whether something that begins like this is in the range.
    fn possible(self) -> bool {
        // Of whole numbers zero has no sign.
        if self.range.integer && self.negative && self.at == At::Zero {
            return false;
        }
        let longest = if self.at == At::Whole { MAX_DIGITS - self.digits } else { 0 };
        (0..=longest).any(|more| {
            let places = self.places(more);
            let scale = 10i128.pow(more + places - self.fraction);
            self.meets(scale, scale, places)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn takes(range: Range, text: &str) -> bool {
        let mut number = None;
        for byte in text.bytes() {
            number = match number {
                None => Number::begin(range, byte),
                Some(number) => Number::push(number, byte),
            };
            if number.is_none() {
                return false;
            }
        }
        number.is_some_and(Number::finished)
    }

    #[test]
    fn numbers_in_the_range_are_taken_and_no_others() {
        let all = f64::INFINITY;
        // The range, what is in it and what is not.
        type Case = (bool, f64, f64, &'static [&'static str], &'static [&'static str]);
        let cases: &[Case] = &[
            (true, 0.0, 23.0, &["0", "7", "19", "23"], &["24", "-1", "70", "230", "1.5", "1e1", "-0", "00", "07"]),
            (true, -3.0, 11.0, &["-3", "-1", "0", "11"], &["-4", "12", "-30", "100"]),
            (true, -all, -10.0, &["-10", "-99", "-1000"], &["-9", "0", "10"]),
            (true, 2.0, all, &["2", "17", "12345678901234567"], &["1", "0", "-2", "123456789012345678"]),
            (false, 0.0, 1f64.next_down(), &["0", "0.0", "0.999", "-0.0"], &["1", "1.0", "-0.1", "0.1e1"]),
            (false, -40.5, -2.0, &["-40.5", "-40.49", "-2", "-2.0", "-17.25"], &["-40.51", "-1.9", "2", "-400", "0"]),
            (false, 0.3, 0.3, &["0.3", "0.300"], &["0.31", "0.2", "3", "0"]),
            // What is smaller than the digits of a double can be written in no other way.
            (false, 0f64.next_up(), 1.0, &["0.5", "1", "0.0000000000000001"], &["0", "0.0", "0.0000000000000000"]),
            (false, -all, all, &["1e5", "-1.5E-12", "0e0"], &["1e", "1e100", "--1", "1."]),
        ];
        for (integer, low, high, good, bad) in cases {
            let range = Range { integer: *integer, low: *low, high: *high };
            assert!(range.can_be_met());
            for (texts, want) in [(good, true), (bad, false)] {
                texts.iter().for_each(|text| assert_eq!(takes(range, text), want, "{text} in {low}..={high}"));
            }
        }
        for (low, high) in [(1e17, 1e18), (0.0, -1.0), (1e-30, 2e-30)] {
            assert!(!Range { integer: false, low, high }.can_be_met(), "{low}..={high}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        /// Any walk along bytes that are taken ends in a number of the range.
        #[test]
        fn whatever_begins_can_be_ended(
            integer in any::<bool>(),
            low in -1.0e4..1.0e4f64,
            width in prop_oneof![Just(0.0), 0.0..1.0e-9f64, 0.0..3.0f64, 0.0..1.0e5f64, Just(f64::INFINITY)],
            choices in prop::collection::vec(any::<u8>(), 40),
        ) {
            let low = if integer { low.floor() } else { low };
            let range = Range { integer, low, high: low + width };
            prop_assume!(range.can_be_met());
            let (mut number, mut text) = (None, String::new());
            for choice in choices {
                let step = |byte: u8| match number {
                    None => Number::begin(range, byte),
                    Some(number) => Number::push(number, byte),
                };
                let ways: Vec<u8> = b"-.0123456789".iter().copied().filter(|byte| step(*byte).is_some()).collect();
                if ways.is_empty() {
                    break;
                }
                let byte = ways[choice as usize % ways.len()];
                number = step(byte);
                text.push(byte.into());
            }
            prop_assert!(number.is_some_and(Number::finished), "{text} in {low}..={}", range.high);
            let value: f64 = text.parse().unwrap();
            // The ends are scaled in doubles, and may be off by the last bit.
            let bit = value.abs() * 2.0 * f64::EPSILON;
            prop_assert!(low - bit <= value && value <= range.high + bit, "{text} in {low}..={}", range.high);
        }
    }
}
