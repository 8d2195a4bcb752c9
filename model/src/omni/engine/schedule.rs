//! Whose work is done next, and who shares the pass: a pure function of what is due.
//!
//! A pass goes through one network: the most urgent need decides which, and everybody else who needs the same network and
//! has one row due joins, because a row more costs almost nothing next to reading the weights. Prompts share what is left
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
}

/// What one conversation could do next in one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) session: SessionId,
    pub(super) network: Network,
    pub(super) class: Class,
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
        let class = if need.waited >= PATIENCE { None } else { Some(need.class) };
        (class, std::cmp::Reverse(need.waited), need.session, need.network)
    });
    let first = order.first()?;
    let network = first.network;
    let mut left = budget.prompt_rows;
    let mut shares = Vec::new();
    let most = if network == Network::Audio { 1 } else { budget.conversations };
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
        Need { session: SessionId(session), network, class, waited, rows }
    }

    fn network() -> impl Strategy<Value = Network> {
        prop::sample::select(vec![Network::Audio, Network::Thinker, Network::Talker])
    }

    fn class() -> impl Strategy<Value = Class> {
        prop::sample::select(vec![Class::Dry, Class::First, Class::Ahead, Class::Proposed])
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
