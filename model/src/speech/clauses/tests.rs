use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn clauses(pieces: &[&str]) -> Vec<Clause> {
    let mut splitter = Splitter::default();
    let mut clauses: Vec<Clause> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
    clauses.extend(splitter.flush());
    clauses
}

fn check(text: &str, expected: &[&str]) {
    let is: Vec<String> = clauses(&[text]).into_iter().map(|c| c.text.trim().to_owned()).collect();
    assert_eq!(is, expected, "{text:?}");
}

#[test]
fn cuts_where_a_speaker_pauses() {
    check("Hello there. How are you?", &["Hello there.", "How are you?"]);
    check("Sure, I can help you with that. Ask away.", &["Sure, I can help you with that.", "Ask away."]);
    check("I'm doing well, thank you.", &["I'm doing well,", "thank you."]);
    check("Yes! No? Maybe… Well.", &["Yes!", "No?", "Maybe…", "Well."]);
    check("He asked, \"Why?\" She left.", &["He asked, \"Why?\"", "She left."]);
    check("The sky is blue - the sea is too.", &["The sky is blue -", "the sea is too."]);
    check(
        "The capital of the country in question is a large city and it has many parks",
        &["The capital of the country in question is a large city", "and it has many parks"],
    );
}

#[test]
fn keeps_together_what_belongs_together() {
    check("Pi is 3.14159 or so.", &["Pi is 3.14159 or so."]);
    check("It has 1,000,000 people.", &["It has 1,000,000 people."]);
    check("Dr. Smith met J. R. Jones.", &["Dr. Smith met J. R. Jones."]);
    check("The U.S. Army came.", &["The U.S. Army came."]);
    check("Fruit, e.g. Apples, is good.", &["Fruit, e.g. Apples,", "is good."]);
    check("We met at 9 a.m. Then we left.", &["We met at 9 a.m.", "Then we left."]);
    check("Wait... what is that?", &["Wait... what is that?"]);
    check("See example.com for more.", &["See example.com for more."]);
    check("At 12:30 it rained.", &["At 12:30 it rained."]);
    check("1. Mix the flour.\n2. Bake it.\n", &["1. Mix the flour.", "2. Bake it."]);
    check("- one\n- two\n- three", &["- one", "- two", "- three"]);
}

#[test]
fn code_is_silent() {
    let text = "Run this:\n```rust\nfn main() { println!(\"Hi. There.\"); }\n```\nThat is all.";
    let clauses = clauses(&[text]);
    let texts: Vec<&str> = clauses.iter().map(|c| c.text.trim()).collect();
    assert_eq!(texts, ["Run this:", "", "That is all."]);
    assert!(text[clauses[1].range.clone()].contains("println"));
}

#[test]
fn long_code_is_handed_on_in_pieces_and_stays_silent() {
    let code = format!("```\n{}\n```\nDone.", "let x = 1. And more.\n".repeat(1000));
    let clauses = clauses(&[&code]);
    assert_eq!(clauses.iter().filter(|c| !c.text.is_empty()).count(), 1);
    assert!(clauses.iter().all(|c| c.range.len() <= MAX_CODE_BYTES + 64));
}

#[test]
fn the_first_clause_leaves_as_soon_as_its_end_is_certain() {
    let mut splitter = Splitter::default();
    assert_eq!(splitter.push("I think so"), []);
    // A number or a quote could follow.
    assert_eq!(splitter.push(","), []);
    assert_eq!(splitter.push(" but").len(), 1);
    assert_eq!(splitter.push(" it depends."), []);
    assert_eq!(splitter.push(" O").len(), 1);
}

#[test]
fn clauses_are_bounded() {
    let long = "word ".repeat(20_000);
    assert!(clauses(&[&long]).iter().all(|c| c.text.split_whitespace().count() <= LIMITS[2].words));
    let solid = "é".repeat(50_000);
    assert!(clauses(&[&solid]).iter().all(|c| c.text.len() <= MAX_BYTES + 4));
}

/// Text as language models write it.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "Hello", "the", "and", "because", "well", "3.5", "1,000", "Dr.", "e.g.", "U.S.", "a.m.", "I", "J.", "é",
        "日本", " ", " ", " ", " ", " ", "\n", "\n\n", ".", ". ", ", ", "; ", ": ", "?", "! ", "…", "...", "—", " - ",
        "```", "```\n", "~~~\n", "- ", "1. ", "|", "**", "(", ")", "\"", "”", "`",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn it_does_not_matter_how_text_is_pushed(text in texts(), seed in any::<u64>()) {
        let whole = clauses(&[&text]);
        let mut pieces = Vec::new();
        let (mut rest, mut seed) = (text.as_str(), seed);
        while !rest.is_empty() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let want = (seed >> 60) as usize + 1;
            let len = rest.char_indices().nth(want).map_or(rest.len(), |(i, _)| i);
            let (now, later) = rest.split_at(len);
            pieces.push(now);
            rest = later;
        }
        prop_assert_eq!(clauses(&pieces), whole);
    }

    #[test]
    fn ranges_touch_and_cover_the_text(text in texts()) {
        let mut at = 0;
        for clause in clauses(&[&text]) {
            prop_assert_eq!(clause.range.start, at);
            prop_assert!(!clause.range.is_empty());
            at = clause.range.end;
            let source = &text[clause.range];
            prop_assert!(clause.text.is_empty() || clause.text == source);
        }
        prop_assert!(text[at..].trim().is_empty(), "{:?} is not covered", &text[at..]);
    }

    #[test]
    fn no_number_is_cut(text in texts()) {
        for clause in clauses(&[&text]) {
            let (before, after) = text.split_at(clause.range.end);
            let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
            let cut = before.ends_with(['.', ',']) && digit(before.chars().rev().nth(1)) && digit(after.chars().next());
            prop_assert!(!cut, "{before:?} {after:?}");
        }
    }
}
