//! What is true of every conversation, whatever comes in and in whatever order.

use proptest::prelude::*;

use crate::fuzz::{fuzz_session, resumes, speculate};

#[test]
fn a_resumed_conversation_answers_as_the_one_that_goes_on() {
    for kind in [0, 1, 2, 3, 16] {
        for turns in 0..4 {
            assert!(resumes(kind, turns), "kind {kind}, {turns} turns: nothing was compared");
        }
    }
    assert!(!resumes(64, 1), "nobody asked for it");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_comes_in_breaks_a_session(data in proptest::collection::vec(any::<u8>(), 0..900)) {
        fuzz_session(&data);
    }

    #[test]
    fn speculation_leaves_no_trace(pauses in proptest::collection::vec(0u64..14, 1..6)) {
        // Pauses of up to 416 ms are proposed and discarded, shorter ones are not; the engine hears the same words.
        prop_assert_eq!(speculate(&pauses), speculate(&[]));
    }
}
