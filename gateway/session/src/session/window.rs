//! What is forgotten so that the conversation goes on: the engine says how long its prompts are, and the session lets the
//! oldest turns go. Instruction and functions stay.

use causerie_model_api::{Request, TurnId};

use super::Session;

impl Session {
    /// The engine has made a prompt.
    pub(super) fn prompt_made(&mut self, turn: Option<TurnId>, tokens: u32, limit: u32) {
        // One that was taken back or interrupted waits for nothing.
        if turn.is_some_and(|turn| self.running(turn).is_none()) {
            return;
        }
        self.prompt_tokens = tokens;
        if tokens > limit && !self.make_room(self.rules.target_tokens.min(limit)) {
            self.engine(Request::Forget { session: self.id, before: None });
        }
    }

    /// A turn is over, whose reply the next prompt will have too. It is the moment to forget: what is left is prefilled
    /// again before somebody waits for it.
    pub(super) fn compress(&mut self, replied: u32) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(replied);
        if self.prompt_tokens > self.rules.trigger_tokens {
            self.make_room(self.rules.target_tokens);
        }
    }

    /// Keeps the history within its own bounds.
    pub(super) fn bound_history(&mut self) {
        if self.history.is_full()
            && let Some(before) = self.history.forget_bound()
        {
            self.drop_proposal();
            self.engine(Request::Forget { session: self.id, before: Some(before) });
        }
    }

    /// Forgets turns until about `target` tokens are left, at least one. Whether there was one. Tokens are shared out
    /// by the length of the text: where that is wrong, the next prompt says so.
    fn make_room(&mut self, target: u32) -> bool {
        let weight = (self.fixed_weight + self.history.weight()) as u64;
        let keep = weight * u64::from(target) / u64::from(self.prompt_tokens.max(1));
        let keep = usize::try_from(keep).unwrap_or(usize::MAX).saturating_sub(self.fixed_weight);
        let Some(before) = self.history.forget(keep) else { return false };
        // An answer begun on trial knew more than the history has now.
        self.drop_proposal();
        self.engine(Request::Forget { session: self.id, before: Some(before) });
        self.prompt_tokens = target;
        true
    }
}
