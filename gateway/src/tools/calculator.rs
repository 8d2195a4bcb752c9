//! Arithmetic as people and models write it: `+ - * / ^ %`, brackets, `sqrt`, and × ÷.

/// Brackets inside brackets.
const MAX_DEPTH: usize = 32;

/// The value of an expression.
///
/// # Errors
/// What is wrong with it, for the model.
pub(super) fn evaluate(expression: &str) -> Result<f64, String> {
    // A comma groups digits.
    let letters = expression.chars().filter(|c| !c.is_whitespace() && *c != ',').collect();
    let mut reader = Reader { letters, at: 0, depth: 0 };
    let value = reader.sum()?;
    match reader.peek() {
        Some(c) => Err(format!("{c:?} is not understood")),
        None if value.is_finite() => Ok(value),
        None => Err("the result is not a number".into()),
    }
}

struct Reader {
    letters: Vec<char>,
    at: usize,
    depth: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    fn eat(&mut self, any: &[char]) -> Option<char> {
        let c = self.peek().filter(|c| any.contains(c))?;
        self.at += 1;
        Some(c)
    }

    fn sum(&mut self) -> Result<f64, String> {
        let mut value = self.product()?;
        while let Some(sign) = self.eat(&['+', '-', '−']) {
            let next = self.product()?;
            value = if sign == '+' { value + next } else { value - next };
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<f64, String> {
        let mut value = self.signed()?;
        while let Some(sign) = self.eat(&['*', '/', '%', '×', '÷']) {
            if sign == '*' && self.eat(&['*']).is_some() {
                value = value.powf(self.signed()?);
                continue;
            }
            let next = self.signed()?;
            value = match sign {
                '*' | '×' => value * next,
                '%' => value % next,
                _ => value / next,
            };
        }
        Ok(value)
    }

    fn signed(&mut self) -> Result<f64, String> {
        let mut negative = false;
        while let Some(sign) = self.eat(&['-', '−', '+']) {
            negative ^= sign != '+';
        }
        let value = self.power()?;
        Ok(if negative { -value } else { value })
    }

    fn power(&mut self) -> Result<f64, String> {
        let base = self.atom()?;
        // From right to left, as in mathematics.
        if self.eat(&['^']).is_some() { Ok(base.powf(self.nested(Self::signed)?)) } else { Ok(base) }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<f64, String>) -> Result<f64, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("it is nested too deeply".into());
        }
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn atom(&mut self) -> Result<f64, String> {
        const ROOT: [char; 4] = ['s', 'q', 'r', 't'];
        if self.letters[self.at..].starts_with(&ROOT) {
            self.at += ROOT.len();
            return self.nested(Self::atom).map(f64::sqrt);
        }
        if self.eat(&['(']).is_some() {
            let value = self.nested(Self::sum)?;
            return if self.eat(&[')']).is_some() { Ok(value) } else { Err("a bracket is not closed".into()) };
        }
        let from = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit() || c == '.') {
            self.at += 1;
        }
        let number: String = self.letters[from..self.at].iter().collect();
        number.parse().map_err(|_| match self.peek() {
            Some(c) if number.is_empty() => format!("a number is missing before {c:?}"),
            _ => "a number is missing at the end".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::evaluate;

    #[test]
    fn arithmetic_is_that_of_school() {
        for (expression, value) in [
            ("2 + 3 * 4", 14.0),
            ("(2 + 3) * 4", 20.0),
            ("-2^2", -4.0),
            ("2^3^2", 512.0),
            ("2**10", 1024.0),
            ("10 - 4 - 3", 3.0),
            ("7 % 4", 3.0),
            ("1,200 / 4", 300.0),
            ("sqrt(16) + .5", 4.5),
            ("6 × 7 ÷ 2", 21.0),
        ] {
            assert_eq!(evaluate(expression), Ok(value), "{expression}");
        }
        for wrong in ["", "2 +", "(2", "2 2)", "1/0", "two", "1.2.3", &"(".repeat(1_000), &"2^".repeat(1_000)] {
            assert!(evaluate(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn anything_is_answered(expression in "[0-9.+*/^%()srqt -]{0,60}") {
            let _ = evaluate(&expression);
        }
    }
}
