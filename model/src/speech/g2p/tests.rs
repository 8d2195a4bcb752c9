use super::*;
use crate::testing::{golden, model};

fn load() -> Option<G2p> {
    let dir = model("hibari")?;
    Some(G2p::load(&dir, &Worker::new()).unwrap())
}

fn say(g2p: &G2p, text: &str) -> String {
    g2p.phonemes(text).unwrap().chars.into_iter().collect()
}

#[test]
fn agrees_with_the_released_package() {
    let Some(g2p) = load() else { return };
    let (mut words, mut wrong_words, mut sentences, mut wrong) = (0, 0, 0, Vec::new());
    for line in golden("speech/phonemes.tsv").lines() {
        let (text, expected) = line.split_once('\t').unwrap();
        let said = say(&g2p, text);
        sentences += 1;
        let (a, b): (Vec<_>, Vec<_>) = (said.split(' ').collect(), expected.split(' ').collect());
        words += b.len();
        if said != expected {
            wrong_words += a.len().abs_diff(b.len()) + a.iter().zip(&b).filter(|(a, b)| a != b).count();
            wrong.push(format!("{text}\n  is        {said}\n  should be {expected}"));
        }
    }
    println!("{} of {sentences} sentences differ, {wrong_words} of {words} words:\n{}", wrong.len(), wrong.join("\n"));
    assert!(wrong_words * 100 <= words, "more than one word in a hundred differs");
}
