//! What this processor can do, found out once.

use std::sync::OnceLock;

/// A set of instructions that fast code is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Plain Rust: runs anywhere. The compiler turns it into whatever the target always has (SSE2, NEON).
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW and VNNI.
    Avx512,
}

impl Backend {
    /// Every backend, slowest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// Whether this processor has the instructions.
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// The fastest one available.
    pub fn best() -> Self {
        static BEST: OnceLock<Backend> = OnceLock::new();
        *BEST.get_or_init(|| *Self::ALL.iter().rfind(|backend| backend.available()).unwrap_or(&Self::Portable))
    }
}

#[cfg(test)]
mod tests {
    use super::Backend;

    #[test]
    fn the_best_backend_is_available_and_none_after_it_is() {
        let best = Backend::best();
        assert!(best.available());
        let position = Backend::ALL.iter().position(|&backend| backend == best).unwrap();
        assert!(Backend::ALL[position + 1..].iter().all(|backend| !backend.available()));
    }
}
