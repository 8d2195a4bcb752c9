//! Dispatch to the kernel of `router.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::Tolerance;
use crate::cuda::{Args, DeviceError, Gpu, Launch, Slice, SliceMut};

/// Most experts: eight a lane.
pub const MAX_EXPERTS: usize = 256;
/// Most experts of a token: one a lane.
pub const MAX_TOP_K: usize = 32;
/// Tokens of a block, a warp each.
const TOKENS: usize = 4;

/// Chooses `top_k` of `experts` for each token, or takes those that are `given`, all inside. Without `normalise` the weights
/// are probabilities among all experts.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit, or there are too many experts.
pub fn top_k<'a>(
    gpu: &Gpu,
    logits: Slice<'a, bf16>,
    experts: usize,
    normalise: bool,
    given: Option<Slice<'a, i32>>,
    ids: &mut SliceMut<'_, i32>,
    weights: &mut SliceMut<'_, f32>,
) -> Result<(), DeviceError> {
    assert!((1..=MAX_EXPERTS).contains(&experts), "router: {experts} experts");
    let tokens = logits.len() / experts;
    if tokens == 0 {
        return Ok(());
    }
    let top_k = ids.len() / tokens;
    assert!((1..=MAX_TOP_K.min(experts)).contains(&top_k), "router: {top_k} of {experts} experts");
    assert!(logits.len() == tokens * experts, "router: {} logits", logits.len());
    assert!(ids.len() == tokens * top_k && weights.len() == ids.len(), "router: {} and {}", ids.len(), weights.len());
    assert!(given.is_none_or(|given| given.len() == ids.len()), "router: other experts are given");
    let args = Args::new().input(logits).optional_input(given).output(ids).output(weights);
    let args = args.size(tokens).size(experts).size(top_k).size(usize::from(normalise));
    let launch = Launch::new("router_top_k", [tokens.div_ceil(TOKENS), 1, 1], 32 * TOKENS as u32, &args);
    // SAFETY: the arguments are the kernel's, and lengths were checked.
    unsafe { gpu.launch(&launch)? };
    gpu.verify("router", |checks| {
        let logits = gpu.widened(logits)?;
        let got = gpu.fetch(ids.as_slice())?;
        checks.equal("ids inside", &[got.iter().all(|&id| (0..experts as i32).contains(&id))], &[true]);
        // Where a logit is not a number any choice will do.
        if logits.iter().all(|logit| logit.is_finite()) {
            let given = given.map(|given| gpu.fetch(given)).transpose()?;
            let (ids, expected) = reference::top_k(&logits, experts, top_k, normalise, given.as_deref());
            checks.equal("ids", &got, &ids);
            let tolerance = Tolerance::f32().summing(experts, 0.1);
            checks.close("weights", &gpu.fetch(weights.as_slice())?, &expected, tolerance);
        }
        Ok(())
    })
}
