//! What becomes of projected queries, keys and values before attention: queries and keys are normalised over the head
//! (RMSNorm) and turned by their positions ([`rope`](super::rope)), and keys and values are appended to the cache.
//!
//! qkv: `[rows, heads + 2 kv_heads, head_dim]`. positions: `[3, rows]` f32. turns: `[rows, pairs]` of (cosine, sine), f32.
//! slots: `[rows]`, each row's place in the cache, negative for none. q: `[rows, heads, head_dim]`. k, v:
//! `[places, kv_heads, head_dim]`. All but the angles in bf16.

pub(crate) mod cases;
pub mod cuda;
pub mod reference;
