//! Whose work is done next, and who shares the pass: a pure function of what is due.
//!
//! A pass goes through one network: the most urgent need decides which (of those with speech in the air, whose listener
//! would hear silence first), and everybody else who needs the same network and has one row due joins, because a row more costs almost nothing next to reading the weights. Prompts share what is left
//! of a budget of rows, so that a long one never makes others wait for more than a short pass. Somebody who has waited for
//! many passes goes before everybody else, whatever the class: nobody starves.

use causerie_model_api::SessionId;

/// How urgent work is; the order of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Speech that is about to run dry.
    Dry,
    /// A committed turn that has not begun to speak.
    First,
    /// A committed turn with speech in reserve.
    Ahead,
    /// A proposed turn.
    Proposed,
    /// What no turn waits for yet: speech that goes on, pictures that come, a prompt before it is answered.
    Early,
}

/// The network that work goes through. Of a conversation that could go on in two, the first of these goes on: a frame is
/// spoken as soon as its word is there, and the next word is thought when the talker waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Network {
    /// The talker with code predictor and vocoder.
    Talker,
    /// The thinker.
    Thinker,
    /// The audio tower. Utterances go through one at a time.
    Audio,
    /// The vision tower. Pictures go through one at a time.
    Vision,
}

/// What one conversation could do next in one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) session: SessionId,
    pub(super) network: Network,
    pub(super) class: Class,
    /// Samples of speech that its listener has not heard: the time until there is silence, if there is speech at all.
    pub(super) ahead: u64,
    /// Passes since it was served last, or since it became due.
    pub(super) waited: u64,
    /// Rows that it could run.
    pub(super) rows: usize,
}

/// What a pass may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Rows of prompts, of all conversations together.
    pub(super) prompt_rows: usize,
    /// Conversations.
    pub(super) conversations: usize,
}

/// One pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) network: Network,
    /// Conversations and their rows, most urgent first.
    pub(super) shares: Vec<(SessionId, usize)>,
}

/// Passes after which waiting outweighs every class.
pub(super) const PATIENCE: u64 = 128;

/// The next pass; `None` if nothing is due.
pub(super) fn plan(needs: &[Need], budget: Budget) -> Option<Pass> {
    let mut order: Vec<&Need> = needs.iter().filter(|need| need.rows > 0).collect();
    // Session and network break ties, so that the order in which needs are listed does not matter.
    order.sort_by_key(|need| {
        let urgency = if need.waited >= PATIENCE { None } else { Some((need.class, need.ahead)) };
        (urgency, std::cmp::Reverse(need.waited), need.session, need.network)
    });
    let first = order.first()?;
    let network = first.network;
    let mut left = budget.prompt_rows;
    let mut shares = Vec::new();
    let most = if matches!(network, Network::Audio | Network::Vision) { 1 } else { budget.conversations };
    for need in order.iter().filter(|need| need.network == network) {
        if shares.len() == most {
            break;
        }
        let rows = if need.rows == 1 { 1 } else { need.rows.min(left) };
        if rows > 0 {
            shares.push((need.session, rows));
            left -= if need.rows == 1 { 0 } else { rows };
        }
    }
    Some(Pass { network, shares })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUDGET: Budget = Budget { prompt_rows: 32, conversations: 64 };

    fn need(session: u64, network: Network, class: Class, waited: u64, rows: usize) -> Need {
        Need { session: SessionId(session), network, class, ahead: 0, waited, rows }
    }

    fn network() -> impl Strategy<Value = Network> {
        prop::sample::select(vec![Network::Audio, Network::Vision, Network::Thinker, Network::Talker])
    }

    fn class() -> impl Strategy<Value = Class> {
        prop::sample::select(vec![Class::Dry, Class::First, Class::Ahead, Class::Proposed, Class::Early])
    }

    #[test]
    fn speech_about_to_run_dry_goes_first_and_single_rows_join() {
        let needs = [
            need(1, Network::Thinker, Class::First, 9, 500),
            need(2, Network::Talker, Class::Dry, 0, 1),
            need(3, Network::Talker, Class::Proposed, 3, 40),
            need(4, Network::Talker, Class::Ahead, 1, 1),
        ];
        let pass = plan(&needs, BUDGET).unwrap();
        let shares = vec![(SessionId(2), 1), (SessionId(4), 1), (SessionId(3), 32)];
        assert_eq!(pass, Pass { network: Network::Talker, shares });
    }

    #[test]
    fn whose_speech_ends_first_goes_first() {
        let ahead = |ahead, need: Need| Need { ahead, ..need };
        let needs = [
            ahead(30_000, need(1, Network::Thinker, Class::Dry, 90, 1)),
            ahead(9_000, need(2, Network::Talker, Class::Dry, 0, 1)),
            ahead(8_000, need(3, Network::Thinker, Class::Dry, 0, 1)),
            ahead(20_000, need(4, Network::Talker, Class::Dry, 7, 1)),
        ];
        let pass = plan(&needs, BUDGET).unwrap();
        assert_eq!(pass, Pass { network: Network::Thinker, shares: vec![(SessionId(3), 1), (SessionId(1), 1)] });
        let crowded = plan(&needs, Budget { conversations: 1, ..BUDGET }).unwrap();
        assert_eq!(crowded.shares, [(SessionId(3), 1)]);
        // Whoever has waited for too long goes before all of them.
        let patient = need(5, Network::Talker, Class::Early, PATIENCE, 1);
        assert_eq!(plan(&[&needs[..], &[patient]].concat(), BUDGET).unwrap().shares[0].0, SessionId(5));
    }

    /// A conversation of the simulation: it asks, is read, is answered a word a frame, and listens.
    #[derive(Clone, Default)]
    struct Talk {
        /// When it asks next, in milliseconds.
        asks: f64,
        /// Rows of its prompt that are not read; words that are there; frames that are spoken.
        prompt: usize,
        words: usize,
        frames: usize,
        /// Words of the whole answer; 0 while nothing is asked.
        length: usize,
        /// When the listener heard the first frame.
        began: Option<f64>,
        waited: u64,
    }

    const FRAME_MS: f64 = 80.0;

    impl Talk {
        /// Speech that the listener has not heard, in milliseconds.
        fn ahead(&self, now: f64) -> f64 {
            self.frames as f64 * FRAME_MS - self.began.map_or(0.0, |began| now - began)
        }

        fn need(&self, session: u64, now: f64) -> Option<Need> {
            if self.length == 0 || self.frames == self.length {
                return None;
            }
            let class = match self.ahead(now) {
                _ if self.began.is_none() => Class::First,
                ahead if ahead < 1_500.0 => Class::Dry,
                _ => Class::Ahead,
            };
            // Credit ends 8 s ahead of the listener.
            let credit = self.ahead(now) < 8_000.0;
            let (network, rows) = match self.prompt {
                0 if self.frames < self.words && credit => (Network::Talker, 1),
                0 if self.words < self.length => (Network::Thinker, 1),
                0 => return None,
                left => (Network::Thinker, left),
            };
            let ahead = (self.ahead(now).max(0.0) * 24.0) as u64;
            Some(Need { ahead, ..need(session, network, class, self.waited, rows) })
        }
    }

    /// Hundreds of conversations for two minutes of virtual time, at a pace that one device keeps: who has begun to hear an
    /// answer hears all of it without a gap, while others come with long prompts, and everybody is answered.
    #[test]
    fn hundreds_of_listeners_hear_no_gap() {
        let mut random = 7_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut talks = vec![Talk::default(); 300];
        talks.iter_mut().for_each(|talk| talk.asks = draw(20_000) as f64);
        let budget = Budget { prompt_rows: 256, conversations: 512 };
        let (mut now, mut answers, mut dry) = (0.0, 0, Vec::new());
        while now < 120_000.0 {
            for talk in &mut talks {
                if talk.length == 0 && talk.asks <= now {
                    (talk.prompt, talk.length) = (20 + draw(900) as usize, 20 + draw(120) as usize);
                    talk.waited = 0;
                } else if talk.length > 0 && talk.frames == talk.length && talk.ahead(now) <= 0.0 {
                    answers += 1;
                    *talk = Talk { asks: now + 2_000.0 + draw(6_000) as f64, ..Talk::default() };
                }
            }
            let needs: Vec<Need> = (0..).zip(&talks).filter_map(|(i, talk)| talk.need(i, now)).collect();
            let Some(pass) = plan(&needs, budget) else {
                now += 1.0;
                continue;
            };
            let rows: usize = pass.shares.iter().map(|(_, rows)| rows).sum();
            // About what the released model would need for a pass: its weights once, and something for every row.
            now += 4.0 + 0.03 * rows as f64;
            talks.iter_mut().for_each(|talk| talk.waited += 1);
            for (session, rows) in pass.shares {
                let talk = &mut talks[session.0 as usize];
                talk.waited = 0;
                match pass.network {
                    Network::Talker => {
                        if talk.began.is_some() && talk.ahead(now) < 0.0 {
                            dry.push((session, now));
                        }
                        talk.frames += 1;
                        talk.began.get_or_insert(now);
                    }
                    _ if talk.prompt > 0 => {
                        talk.prompt -= rows;
                        talk.words += usize::from(talk.prompt == 0);
                    }
                    _ => talk.words += 1,
                }
            }
        }
        assert!(answers > 1_500, "{answers} answers");
        assert!(dry.is_empty(), "{} gaps, the first at {:?}", dry.len(), dry[0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_pass_is_within_its_budget_and_ignores_the_order_of_the_list(
            list in prop::collection::vec((0_u64..40, network(), class(), 0_u64..200, 0_usize..100), 0..120),
            turn in 0_usize..120,
        ) {
            let mut needs: Vec<Need> =
                list.into_iter().map(|(s, n, c, w, r)| need(s, n, c, w, r)).collect();
            needs.sort_by_key(|n| (n.session, n.network as u8));
            needs.dedup_by_key(|n| (n.session, n.network as u8));
            let pass = plan(&needs, BUDGET);
            prop_assert_eq!(pass.is_none(), needs.iter().all(|n| n.rows == 0));
            let Some(pass) = pass else { return Ok(()) };
            let rows_of = |session: SessionId| {
                needs.iter().find(|n| n.session == session && n.network == pass.network).map_or(0, |n| n.rows)
            };
            prop_assert!(!pass.shares.is_empty() && pass.shares.len() <= BUDGET.conversations);
            let prompts = pass.shares.iter().filter(|(s, _)| rows_of(*s) > 1);
            prop_assert!(prompts.map(|(_, rows)| rows).sum::<usize>() <= BUDGET.prompt_rows);
            for (session, rows) in &pass.shares {
                prop_assert!(*rows >= 1 && *rows <= rows_of(*session));
            }
            let middle = turn % needs.len();
            needs.rotate_left(middle);
            prop_assert_eq!(plan(&needs, BUDGET), Some(pass));
        }

        /// Hundreds of conversations that always want something, of any class: each is served again and again.
        #[test]
        fn nobody_starves(kinds in prop::collection::vec((network(), class(), 1_usize..200), 2..300)) {
            let mut waited = vec![0_u64; kinds.len()];
            let mut longest = 0;
            for _ in 0..1_000 {
                let needs: Vec<Need> = kinds
                    .iter()
                    .enumerate()
                    .map(|(i, (network, class, rows))| need(i as u64, *network, *class, waited[i], *rows))
                    .collect();
                let pass = plan(&needs, BUDGET).unwrap();
                waited.iter_mut().for_each(|w| *w += 1);
                pass.shares.iter().for_each(|(session, _)| waited[session.0 as usize] = 0);
                longest = longest.max(waited.iter().copied().max().unwrap_or(0));
            }
            // The impatient are served one a pass at the least.
            prop_assert!(longest <= PATIENCE + 2 * kinds.len() as u64, "{longest} of {}", kinds.len());
        }
    }
}
